"""`run` says what transformers says: from folders and repositories, and in other tasks than speaking."""

import json
import re
import signal
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
import transformers

import torchgguf as package
from tests.cli.conftest import COMMAND, TIMEOUT
from tests.models.tiny import Case, counterpart, longrope, reference
from tests.peers.hub import Repository, serving
from tests.support import VOCABS
from torchgguf.cli import main
from torchgguf.cli.loading import start_session
from torchgguf.cli.options import Options

VOCAB = VOCABS / "ggml-vocab-gpt-2.gguf"
PROMPT = "Hello, I'm a language model"
LINES = ["John Smith lives in New York.", "A short one"]
HEADS = {
    "text-generation": "LMHeadModel",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "feature-extraction": "Model",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """By task, a tiny GPT-2 for it and GPT-2's own tokenizer, in a folder as `save_pretrained` leaves it."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = package.AutoTokenizer.from_pretrained(VOCAB)
    config = package.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3)
    torch.manual_seed(0)
    for task, head in HEADS.items():
        getattr(package, f"GPT2{head}")(config).save_pretrained(root / task)
        tokenizer.save_pretrained(root / task)
    return {task: root / task for task in HEADS}


@pytest.fixture(scope="module")
def answer(folders) -> str:
    """How transformers' model goes on, always with the likeliest token."""
    theirs = transformers.pipeline("text-generation", model=str(folders["text-generation"]), device="cpu")
    (record,) = theirs(PROMPT, max_new_tokens=12, do_sample=False, return_full_text=False)
    return record["generated_text"]


@pytest.fixture
def run(capsys, monkeypatch):
    """`run(*arguments)`: exit code, output and errors of `torchgguf run`, in this process: most want none."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["run", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def test_a_folder_speaks(torchgguf, folders):
    result = torchgguf(
        *("run", "--task", "text-generation", "--model", folders["text-generation"], "--device", "cpu"),
        input=PROMPT + "\n",
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.split()) > 1


def test_a_folder_says_what_transformers_says(run, folders, answer):
    folder = folders["text-generation"]
    for arguments in ([folder, PROMPT], ["--model", folder, PROMPT], [PROMPT, "--model", folder]):
        assert run(*arguments, "-t", 0, "-n", 12) == (0, answer + "\n", "")


def test_what_is_read_of_a_long_text_does_not_do_for_a_short_one(tmp_path):
    """With LongRoPE they have other frequencies, so that a conversation begun anew is read anew."""
    case = Case("Phi3", {**longrope(8, original=8, longest=256), "vocab_size": 50257})
    theirs, tokenizer = reference(case), package.AutoTokenizer.from_pretrained(VOCAB)
    counterpart(theirs).save_gguf(tmp_path / "x.gguf", tokenizer=tokenizer)
    session = start_session(str(tmp_path / "x.gguf"), Options(temperature=0, max_new_tokens=3))
    for text in ("one two three four five six seven eight nine ten", "one two three four"):
        ids = torch.tensor([tokenizer(text).input_ids])
        new = theirs.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :]
        assert "".join(session.complete(text)) == tokenizer.decode(new.tolist())


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "feature-extraction"])
def test_other_tasks_answer_each_line(run, folders, task):
    code, output, errors = run("--task", task, "--model", folders[task], "\n\n".join(LINES))
    assert (code, errors) == (0, "")
    theirs = transformers.pipeline(task, model=str(folders[task]), device="cpu")
    for line, answer in zip(LINES, map(json.loads, output.splitlines()), strict=True):
        expected = theirs(line)
        assert_near(answer, expected[0] if task == "text-classification" else expected)


def assert_near(actual, expected):
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        actual, expected = list(actual.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_near(one, other)
    else:
        assert (
            actual == expected if isinstance(expected, str) else actual == pytest.approx(expected, 1e-4, 1e-6)
        )


def test_questions_are_answered_from_the_context(run, folders):
    context = "John lives in New York, Jane in Rome."
    code, output, errors = run(
        folders["question-answering"], "Where?\nWho?", "--task", "question-answering", "--context", context
    )
    assert (code, errors) == (0, "")
    answers = [json.loads(line) for line in output.splitlines()]
    assert len(answers) == 2
    assert all(context[found["start"] : found["end"]] == found["answer"] for found in answers)


def test_a_head_that_is_new_is_a_warning(torchgguf, folders):
    result = torchgguf("run", folders["text-generation"], "a", "--task", "ner")
    assert result.returncode == 0
    new = r"warning: some parameters of GPT2ForTokenClassification are not stored; .*classifier.*\n"
    assert re.fullmatch(new, result.stderr)
    assert len(json.loads(result.stdout)) == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--task", "juggling", "DIR", "x"], "--task: must be one of text-generation, text2text"),
        (["DIR", "x", "--model", "DIR"], "the model must be named once"),
        (["--task", "ner"], "name a model"),
        (["--task", "ner", "DIR", " \n"], "the prompt is empty"),
        (["--task", "ner", "DIR", "x", "-t", "0"], "--temperature: only for text-generation"),
        (["--task", "ner", "DIR", "x", "--max-new-tokens", "3"], "--max-new-tokens: only for"),
        (["--task", "ner", "DIR", "x", "--raw"], "--raw: only for text-generation"),
        (["--task", "question-answering", "DIR", "x"], "--context: question-answering requires it"),
        (["DIR", "x", "--context", "y"], "--context: only for question-answering"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(run, folders, arguments, said):
    code, output, errors = run(*(folders["text-generation"] if a == "DIR" else a for a in arguments))
    assert (code, output) == (2, "")
    assert re.fullmatch(r"error: .*\n", errors)
    assert said in errors


@pytest.mark.parametrize("task", ["text-generation", "ner"])
@pytest.mark.parametrize(
    "place, said",
    [
        ("./nowhere", "there is no folder ./nowhere"),
        ("no/such/folder", "there is no folder no/such/folder"),
        ("nowhere.gguf", "there is no file nowhere.gguf"),
        (".", ". holds no tokenizer: .*"),
    ],
)
def test_wrong_places(run, tmp_path, monkeypatch, task, place, said):
    monkeypatch.chdir(tmp_path)
    code, output, errors = run("--task", task, place, "x")
    assert (code, output) == (1, "")
    assert re.fullmatch(f"error: {said}\n", errors)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
@pytest.mark.parametrize("task", ["text-generation", "feature-extraction"])
def test_a_device_that_is_not_there(run, folders, device, task):
    code, output, errors = run("--task", task, folders[task], "x", "--device", device)
    assert (code, output) == (2, "")
    assert re.fullmatch(rf"error: Invalid value: device='{device}' is not available \(.*\)\n", errors)


def test_repositories(torchgguf, folders, answer, tmp_path):
    """By their name, and with the name of a GGUF file in them; in one line where nobody can be asked."""
    files = {path.name: path.read_bytes() for path in folders["text-generation"].iterdir()}
    model = package.AutoModelForCausalLM.from_pretrained(folders["text-generation"])
    tokenizer = package.AutoTokenizer.from_pretrained(folders["text-generation"])
    model.save_gguf(tmp_path / "x.gguf", tokenizer=tokenizer)
    gguf = {"x.gguf": (tmp_path / "x.gguf").read_bytes()}
    repositories = {"me/folder": Repository({"main": files}), "me/file": Repository({"main": gguf})}
    with serving(repositories) as server:
        environment = server.environment(tmp_path / "cache", HF_HUB_DISABLE_PROGRESS_BARS="1")
        for place in ("me/folder", "me/file:x.gguf"):
            result = torchgguf("run", "--model", place, PROMPT, "-t", 0, "-n", 12, env=environment)
            assert (result.returncode, result.stdout, result.stderr) == (0, answer + "\n", "")
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    result = torchgguf("run", "--model", "me/other", PROMPT, env=offline)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"error: .*repository me/other .*HF_HUB_OFFLINE.*\n", result.stderr)


def test_ctrl_c_ends_other_tasks(folders):
    command = [*COMMAND, "run", "--task", "feature-extraction", folders["feature-extraction"]]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"A line\n" * 100_000)
    process.stdin.close()
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.stderr.read() == b""
    assert process.wait(TIMEOUT) == 130

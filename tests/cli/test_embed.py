"""`torchgguf embed`: the vectors that llama.cpp computes, of texts from everywhere."""

import json
import re

import pytest
import torch
from torch.testing import assert_close

from tests.models.test_bert import CASES as ENCODERS, twin
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import embeddings
from tests.peers.vocabularies import BYTE_LEVEL, add_tokenizer
from torchgguf import AutoModel, AutoTokenizer, pipeline
from torchgguf.cli import main

TEXTS = ["The licenses for most software", "are designed to take away your freedom", "to share"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """By the name of a pooling, a model whose file states it: encoders, and a decoder that embeds."""
    root, files = tmp_path_factory.mktemp("embedders"), {}
    bert = reference(ENCODERS["bert"], "AutoModel")
    models = {
        "cls": (twin(bert), "bert"),
        "last": (counterpart(reference(CASES["qwen3"])), "qwen3"),
        "silent": (twin(bert), "bert"),
        "rank": (twin(bert), "bert"),
    }
    for name, (model, model_type) in models.items():
        (root / name).mkdir()
        model.config.save_pretrained(root / name)
        add_tokenizer(root / name, model_type)
        model.pooling = None if name == "silent" else name
        files[name] = root / f"{name}.gguf"
        tokenizer = AutoTokenizer.from_pretrained(root / name, pre=BYTE_LEVEL.get(model_type))
        model.save_gguf(files[name], tokenizer=tokenizer)
    return files


@pytest.fixture
def embed(capsys):
    """`embed(*arguments)`: exit code, output and errors of `torchgguf embed`, in this process."""

    def call(*arguments):
        capsys.readouterr()
        code = main(["embed", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_vectors_are_those_of_llama_cpp(embed, files, pooling):
    """llama.cpp's gelu is an approximation in FP16."""
    vectors = parsed(embed(files[pooling], *TEXTS))
    assert_close(vectors.norm(dim=-1), torch.ones(3))
    assert_close(vectors, embeddings(files[pooling], TEXTS), atol=2e-3, rtol=0)


def parsed(result):
    """The vectors that a run without errors printed."""
    code, output, errors = result
    assert (code, errors) == (0, "")
    return torch.tensor([json.loads(line) for line in output.splitlines()])


def test_options(embed, files, tmp_path, monkeypatch):
    """The same texts as arguments, from a file and from standard input; one array; other poolings."""
    file = files["cls"]
    expected = parsed(embed(file, *TEXTS))
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS) + "\n")
    actual = embed(file, "--file", tmp_path / "texts.txt", "--batch-size", 2)
    assert_close(parsed(actual), expected, atol=1e-5, rtol=1e-5)
    with (tmp_path / "texts.txt").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert torch.equal(parsed(embed(file)), expected)
    _, array, _ = embed(file, *TEXTS, "--json")
    assert torch.equal(torch.tensor(json.loads(array)), expected)
    worker = pipeline("feature-extraction", file, return_tensors=True)
    for pooling, of_states in (("mean", lambda x: x.mean(1)), ("last", lambda x: x[:, -1])):
        _, output, _ = embed(file, TEXTS[0], "--pooling", pooling, "--no-normalize")
        assert_close(torch.tensor([json.loads(output)]), of_states(worker(TEXTS[0])), atol=1e-5, rtol=1e-5)
    _, output, _ = embed(file, TEXTS[0], "--pooling", "none", "--no-normalize")
    assert_close(torch.tensor(json.loads(output)), worker(TEXTS[0])[0], atol=1e-5, rtol=1e-5)


def test_a_model_that_states_no_pooling(embed, files):
    """As in llama-embedding, there is a vector of each token; but a note says so."""
    code, output, errors = embed(files["silent"], "freedom")
    assert code == 0
    states = torch.tensor(json.loads(output))
    assert_close(states.norm(dim=-1), torch.ones(len(states)))
    assert re.fullmatch(r"The model states no pooling: .* --pooling mean, cls or last makes one .*\n", errors)
    assert embed(files["silent"], "freedom", "--pooling", "cls")[2] == ""


def test_texts_that_are_too_long(embed, files):
    long = "freedom " * 200
    code, output, errors = embed(files["cls"], long)
    assert (code, output) == (1, "")
    assert re.fullmatch(r"error: the text has \d+ tokens, but the model's context is 128: .*\n", errors)
    code, output, errors = embed(files["cls"], long, "--truncate")
    assert (code, errors) == (0, "")


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["MODEL", "x", "--file", "texts.txt"], 2, "--file: the texts are arguments already"),
        (["MODEL", " "], 2, "TEXT: a text is empty"),
        (["MODEL", "x", "--pooling", "rank"], 2, "'rank' is not one of"),
        (["MODEL", "x", "--device", "toaster"], 2, "device='toaster' is not available"),
        (["MODEL", "--file", "nowhere.txt"], 1, "nowhere.txt: No such file or directory"),
        (
            ["RANK", "x"],
            1,
            "pooling='rank' is unsupported: the model states it; pass one of auto, none, mean",
        ),
    ],
    ids=str,
)
def test_wrong_usage(embed, files, arguments, code, said):
    places = {"MODEL": files["cls"], "RANK": files["rank"]}
    actual, output, errors = embed(*(places.get(argument, argument) for argument in arguments))
    assert (actual, output) == (code, "")
    assert re.fullmatch(r"error: .*\n", errors)
    assert said in errors


def test_the_pipeline_pools_as_the_model_states(files):
    """Without `pooling` it returns states as before; the task of a file of an encoder is known."""
    worker = pipeline(model=files["cls"], device="cpu")
    assert worker.task == "feature-extraction"
    states = worker(TEXTS)
    assert [len(each) for each in states] == [1, 1, 1]
    assert worker(TEXTS, pooling="auto", batch_size=3) == [
        pytest.approx(each[0][0], rel=1e-4, abs=1e-5) for each in states
    ]
    assert isinstance(worker(TEXTS[0], pooling="last", normalize=True, return_tensors=True), torch.Tensor)
    with pytest.raises(ValueError, match="pooling='sum' is unsupported: pass one of auto, none, mean, cls"):
        worker(TEXTS, pooling="sum")
    assert AutoModel.from_pretrained(files["last"]).pooling == "last"

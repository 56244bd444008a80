"""The page on GPT-2, top to bottom: each claim and each snippet, in the page's order.

Snippets are taken out of the page and run as they stand, `transformers` replaced by `torchgguf`; repositories
come from a local Hub that has small random stand-ins. `.to("cuda")` is `.to("cpu")` where there is no CUDA.
Beside them transformers runs the same snippet on the same files.
"""

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from torch.testing import assert_close

import torchgguf
from tests.pages.pages import DEVICE, GPT2, documented, needs_pages, ours, snippet, snippets, theirs
from tests.pages.stand_ins import openai_gpt2
from tests.support import ROOT, VOCABS

pytestmark = [
    needs_pages,
    pytest.mark.slow,
    pytest.mark.skipif(not VOCABS.exists(), reason="GPT-2's vocabulary is not there: ../shared/vocabs"),
]
REPOSITORY, PROMPT = "openai-community/gpt2", "Hello, I'm a language model"


@pytest.fixture(scope="module")
def repositories() -> dict[str, dict[str, bytes]]:
    return {
        REPOSITORY: openai_gpt2(n_embd=64, n_layer=2, n_head=4),
        # bitsandbytes' kernels for CPUs take rows of whole blocks of 64 only.
        "openai-community/gpt2-xl": openai_gpt2(n_embd=320, n_layer=2, n_head=5, output_past=True),
    }


@pytest.fixture(scope="module")
def gpt2(folders) -> Path:
    """The stand-in as a folder."""
    return folders / REPOSITORY


@pytest.fixture(scope="module")
def twins(gpt2):
    """Whole models, ours and that of transformers."""
    return (
        torchgguf.GPT2LMHeadModel.from_pretrained(gpt2).eval(),
        transformers.GPT2LMHeadModel.from_pretrained(gpt2).eval(),
    )


def tokens(count: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(0, 600, (rows, count), generator=torch.Generator().manual_seed(count))


def test_every_snippet_of_the_page_is_run_here():
    first_lines = [code.splitlines()[0] for code in snippets(GPT2)]
    assert first_lines == ["import torch", "import torch", VLLM, "import torch"]


# --- GPT-2


@torch.no_grad()
def test_flash_attention_and_sdpa(gpt2):
    """The badges: FlashAttention, SDPA (and TensorFlow, which transformers itself has since dropped)."""
    ids = tokens(9)
    expected = transformers.GPT2LMHeadModel.from_pretrained(gpt2, attn_implementation="eager")(ids).logits
    for name in ("sdpa", "eager"):
        model = torchgguf.GPT2LMHeadModel.from_pretrained(gpt2, attn_implementation=name)
        assert_close(model(ids).logits, expected, atol=1e-4, rtol=0)
    if find_spec("flash_attn") is None:  # what it does where it is there: tests/nn/test_attention.py
        with pytest.raises(ImportError, match="pip install flash-attn"):
            torchgguf.GPT2LMHeadModel.from_pretrained(gpt2, attn_implementation="flash_attention_2")


def test_predicts_the_next_word_from_all_those_before(twins):
    """“A causal transformer language model, pretrained to predict the next word from all previous words.”"""
    ids = tokens(20)
    actual, expected = (model(ids, labels=ids) for model in twins)
    assert_close(actual.loss, expected.loss)
    next_tokens = actual.logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
    assert_close(-next_tokens.mean(), actual.loss)


@torch.no_grad()
def test_each_token_attends_only_to_those_before_it(twins):
    """“Unidirectional (causal) attention, where each token can only attend to previous tokens.”"""
    ids = tokens(20)
    changed = ids.clone()
    changed[0, 12] += 1
    before, after = twins[0](ids).logits[0], twins[0](changed).logits[0]
    assert_close(before[:12], after[:12], atol=1e-5, rtol=0)
    assert ((before - after)[12:].abs().amax(-1) > 1e-3).all()


@torch.no_grad()
def test_original_checkpoints_are_those_of_openai_community(notebook, gpt2):
    """“All original GPT-2 checkpoints are in the OpenAI community organisation.”

    Their weights have no `transformer.` in their names, and masks among them; neither is worth a warning.
    """
    with safe_open(gpt2 / "model.safetensors", "pt") as file:
        assert {"wte.weight", "h.0.attn.bias", "h.0.attn.c_attn.weight"} <= set(file.keys())
    cell = notebook.run(
        "from torchgguf import AutoTokenizer, GPT2LMHeadModel",
        f"tokenizer = AutoTokenizer.from_pretrained({REPOSITORY!r})",
        f"model = GPT2LMHeadModel.from_pretrained({REPOSITORY!r})",
        f"model(**tokenizer({PROMPT!r}, return_tensors='pt')).logits.tolist()",
    )
    assert cell.out == cell.err == ""
    prompt = transformers.AutoTokenizer.from_pretrained(gpt2)(PROMPT, return_tensors="pt")
    expected = transformers.GPT2LMHeadModel.from_pretrained(gpt2)(**prompt).logits
    assert_close(torch.tensor(cell.value), expected, atol=1e-4, rtol=0)


# --- Pipeline, AutoModel, command line


def test_pipeline(notebook, folders):
    """The first snippet. Without a GPU its `device=0` is the CPU, which is said.

    It draws its text, so what is compared with transformers is the same call, asked to draw nothing.
    """
    code = snippet(GPT2, "device=0")
    drawn = notebook.run("import torch", "torch.manual_seed(0)", ours(code))
    if DEVICE == "cpu":
        assert "device=0: there is no GPU, the pipeline falls back to the CPU" in drawn.err
    (answer,) = drawn.value
    assert answer.keys() == {"generated_text"}
    assert answer["generated_text"].startswith(PROMPT)
    assert len(answer["generated_text"]) > 2 * len(PROMPT)

    more = f"answer = pipeline({PROMPT!r}, do_sample=False, max_new_tokens=24)"
    shown = "[answer, str(pipeline.model.dtype), pipeline.model.device.type]"
    expected = notebook.run(theirs(code), more, shown, folder=folders).value
    assert notebook.run(ours(code), more, shown).value == expected
    assert expected[1:] == ["torch.float16", DEVICE]


def test_auto_model(notebook, folders):
    """The second snippet: `dtype`, `device_map`, `attn_implementation`, a static cache."""
    code = snippet(GPT2, 'cache_implementation="static"')
    shown = "[output.tolist(), str(model.dtype), model.device.type, type(model).__name__]"
    actual, expected = notebook.run(ours(code), shown), notebook.run(theirs(code), shown, folder=folders)
    assert actual.out == expected.out
    assert actual.out.startswith(PROMPT)
    assert actual.value == expected.value
    assert actual.value[1:] == ["torch.float16", DEVICE, "GPT2LMHeadModel"]


@pytest.mark.parametrize("place", ["folder", "repository"])
def test_command_line(notebook, folders, twins, place):
    """“… and from the command line”: the command that belongs here, which this translation has lost."""
    model, folder = (REPOSITORY, notebook.folder) if place == "repository" else (".", folders / REPOSITORY)
    command = f'echo "{PROMPT}" | torchgguf run --task text-generation --model {model} --device cpu'
    scripts = str(Path(sys.executable).parent)
    environment = notebook.environment | {"PATH": os.pathsep.join((scripts, os.environ["PATH"]))}

    def said(options: str) -> str:
        """What the command, and these options after it, print."""
        streams = {"stdout": subprocess.PIPE, "env": environment, "cwd": folder}
        done = subprocess.run(f"{command} {options}", shell=True, check=True, timeout=120, **streams)
        return done.stdout.decode()

    assert len(said("")) > len(PROMPT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / REPOSITORY)
    prompt = tokenizer(PROMPT, return_tensors="pt")
    greedy = twins[1].generate(**prompt, max_new_tokens=24, do_sample=False)[0]
    text = tokenizer.decode(greedy, skip_special_tokens=True)
    assert PROMPT + said("--temperature 0 --max-new-tokens 24") == text + "\n"


# --- vLLM

VLLM = "vllm serve openai-community/gpt2 --model-imp transformers"


def test_what_vllm_needs(gpt2, tmp_path):
    """“You can also serve the model with vLLM, with the transformers backend.”

    Here: what we save has all that docs/vllm.md says vLLM takes. That it serves it, with the tokens that
    `generate` gives, shows examples/serve_with_vllm.py.
    """
    torchgguf.AutoModelForCausalLM.from_pretrained(gpt2).save_pretrained(tmp_path)
    torchgguf.AutoTokenizer.from_pretrained(gpt2).save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["GPT2LMHeadModel"], "gpt2")
    _, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert "--model-impl transformers" in (ROOT / "docs" / "vllm.md").read_text()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(PROMPT).input_ids == transformers.AutoTokenizer.from_pretrained(gpt2)(PROMPT).input_ids


# --- Quantization


def test_four_bits(notebook, folders):
    """The snippet with `BitsAndBytesConfig`, “only weights to 4 bits”: they take less memory."""
    pytest.importorskip("bitsandbytes", reason="pip install 'torchgguf[bnb]'")
    code = snippet(GPT2, "BitsAndBytesConfig")
    shown = "[outputs.tolist(), [n for n, p in model.named_parameters() if p.dtype == torch.uint8]]"
    actual, expected = notebook.run(ours(code), shown), notebook.run(theirs(code), shown, folder=folders)
    assert actual.out == expected.out
    assert actual.out.startswith("Once upon a time, there was a magical forest")
    assert actual.value == expected.value
    assert len(actual.value[1]) == 2 * 4  # the four matrices of each of two layers, and nothing else
    plain = code.replace("quantization_config=quantization_config,\n", "")
    assert plain != code
    weights = "sum(p.nbytes for n, p in model.named_parameters() if '.c_' in n and p.dim() > 1)"
    packed, whole = (notebook.run(ours(each), weights).value for each in (code, plain))
    assert packed < 0.15 * whole


# --- Notes


@torch.no_grad()
def test_absolute_positions_pad_on_the_right(gpt2, twins):
    """“GPT-2 uses absolute position embeddings, so pad inputs on the right.”"""
    tokenizer = torchgguf.GPT2Tokenizer.from_pretrained(gpt2, pad_token="<|endoftext|>")
    texts = ["Hello", "Hello, I'm a language model"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    length = int(batch.attention_mask[0].sum())
    assert batch.attention_mask[0].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)
    model, other = twins
    alone = model(**tokenizer(texts[0], return_tensors="pt")).logits
    assert_close(model(**batch).logits[:1, :length], alone, atol=1e-4, rtol=0)
    # On the left the text has other positions, so it needs to be told its own.
    left = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    assert (model(**left).logits[:1, -length:] - alone).abs().max() > 0.01
    positions = (left.attention_mask.cumsum(-1) - 1).clamp(min=0)
    assert_close(model(**left, position_ids=positions).logits[:1, -length:], alone, atol=1e-4, rtol=0)
    for padded in (batch, left):
        real = padded.attention_mask.bool()
        assert_close(model(**padded).logits[real], other(**padded).logits[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_past_key_values_are_reused(twins):
    """“GPT-2 can reuse previously computed key-value pairs: past_key_values of GPT2Model.forward.”"""
    model, other = (whole.transformer for whole in twins)
    ids = tokens(12)
    whole = other(ids).last_hidden_state
    first = model(ids[:, :8], use_cache=True)
    assert first.past_key_values.get_seq_length() == 8
    second = model(ids[:, 8:], past_key_values=first.past_key_values)
    assert second.past_key_values.get_seq_length() == 12
    both = torch.cat((first.last_hidden_state, second.last_hidden_state), dim=1)
    assert_close(both, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_training_stability_improvements_of_mistral(gpt2, attention):
    """“Enable scale_attn_by_inverse_layer_idx and reorder_and_upcast_attn to apply them.”"""
    flags = {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}
    actual = torchgguf.GPT2LMHeadModel.from_pretrained(gpt2, attn_implementation=attention, **flags)
    expected = transformers.GPT2LMHeadModel.from_pretrained(gpt2, attn_implementation="eager", **flags)
    ids = tokens(16)
    outputs = [model.eval()(ids, labels=ids) for model in (actual, expected)]
    assert_close(outputs[0].logits, outputs[1].logits, atol=1e-4, rtol=0)
    plain = torchgguf.GPT2LMHeadModel.from_pretrained(gpt2)(ids).logits
    assert (outputs[0].logits - plain).abs().max() > 0.01
    for output in outputs:
        output.loss.backward()
    gradients = [model.transformer.wte.weight.grad for model in (actual, expected)]
    assert_close(*gradients, atol=1e-4, rtol=1e-3)


# --- What the page has documentation of

CLASSES = (
    "GPT2Model",
    "GPT2LMHeadModel",
    "GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
)
# A module of transformers' is part of this name; ours are other ones, and all is offered at the top.
OUTPUT = "models.gpt2.modeling_gpt2.GPT2DoubleHeadsModelOutput"
# Arguments that transformers' forward methods have and ours do not, and why.
NOT_TAKEN = {
    "encoder_hidden_states": "attention to an encoder, add_cross_attention=True, is refused by GPT2Config",
    "encoder_attention_mask": "the same",
}


def test_all_that_is_documented_is_there():
    """Each [[autodoc]] with the methods under it, and something is said of each."""
    methods = {"GPT2Config": [], "GPT2Tokenizer": ["save_vocabulary"], "GPT2TokenizerFast": [], OUTPUT: []}
    assert documented(GPT2) == {**methods, **{name: ["forward"] for name in CLASSES}}
    for name, listed in documented(GPT2).items():
        found = getattr(torchgguf, name.rpartition(".")[2])
        for each in (found, *(getattr(found, method) for method in listed)):
            assert inspect.getdoc(each), (name, each)


def test_gpt2_config():
    """[[autodoc]] GPT2Config: every field, with the default that transformers gives it."""
    fields = {field.name: field.default for field in dataclasses.fields(transformers.GPT2Config)}
    own = {name for name in transformers.GPT2Config.__annotations__ if name in fields}
    assert len(own) > 20
    config = torchgguf.GPT2Config()
    assert {name: getattr(config, name) for name in own} == {name: fields[name] for name in own}


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "GPT2TokenizerFast"])
def test_gpt2_tokenizer(name, gpt2, tmp_path):
    """[[autodoc]] GPT2Tokenizer and GPT2TokenizerFast: `save_vocabulary` writes what they were made of."""
    mine, peer = getattr(torchgguf, name), getattr(transformers, name)
    assert [*inspect.signature(peer).parameters][:-1] == [*inspect.signature(mine).parameters][:8]
    for tokenizer in (mine.from_pretrained(gpt2), mine(str(gpt2 / "vocab.json"), str(gpt2 / "merges.txt"))):
        assert tokenizer(PROMPT).input_ids == peer.from_pretrained(gpt2)(PROMPT).input_ids
        assert tokenizer.decode(tokenizer(PROMPT).input_ids) == PROMPT
        files = tokenizer.save_vocabulary(str(tmp_path))
        assert [Path(file).name for file in files] == ["vocab.json", "merges.txt"]
        vocabulary, merges = (Path(file).read_text() for file in files)
        assert json.loads(vocabulary) == json.loads((gpt2 / "vocab.json").read_text())
        assert merges == (gpt2 / "merges.txt").read_text()


def test_gpt2_double_heads_model_output(gpt2):
    """[[autodoc]] GPT2DoubleHeadsModelOutput: its fields, by name, by place and unpacked."""
    from transformers.models.gpt2.modeling_gpt2 import GPT2DoubleHeadsModelOutput as Theirs

    assert dataclasses.is_dataclass(torchgguf.GPT2DoubleHeadsModelOutput)
    names = [field.name for field in dataclasses.fields(torchgguf.GPT2DoubleHeadsModelOutput)]
    assert names == [field.name for field in dataclasses.fields(Theirs)]
    ids = tokens(6, rows=4).view(2, 2, 6)
    given = {"labels": ids, "mc_labels": torch.tensor([0, 1]), "mc_token_ids": torch.tensor([[5, 3], [5, 5]])}
    output = torchgguf.GPT2DoubleHeadsModel.from_pretrained(gpt2)(ids, **given)
    assert type(output) is torchgguf.GPT2DoubleHeadsModelOutput
    loss, mc_loss, logits, mc_logits, *_ = output
    assert (loss, mc_loss) == (output[0], output["mc_loss"])
    assert (logits.shape, mc_logits.shape) == ((2, 2, 6, output.logits.shape[-1]), (2, 2))


@pytest.mark.parametrize("name", CLASSES)
def test_forward(name, gpt2):
    """[[autodoc]] … - forward: what transformers' takes, in its order where arguments go without names."""
    kinds = inspect.Parameter
    parameters = inspect.signature(getattr(torchgguf, name).forward).parameters.values()
    expected = inspect.signature(getattr(transformers, name).forward).parameters
    wanted = [each for each in expected if each not in ("self", "kwargs", *NOT_TAKEN)]
    by_place = [each.name for each in parameters if each.kind is kinds.POSITIONAL_OR_KEYWORD]
    assert by_place[1:] == wanted[: len(by_place) - 1]
    # All are taken by name: each is said to be None, or its default, which changes nothing.
    model = getattr(torchgguf, name).from_pretrained(gpt2)
    neutral = {each: expected[each].default for each in wanted if each != "input_ids"}
    given = tokens(5)
    with torch.no_grad():
        assert_close(model(given, **neutral)[0], model(given)[0])
    for each in NOT_TAKEN.keys() & expected.keys():
        with pytest.raises(TypeError, match=each):
            model(given, **{each: torch.zeros(1, 1, 64)})


def test_there_is_no_attention_to_an_encoder():
    """Why two arguments are not taken: no model here could use them, and a config that could is refused."""
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        torchgguf.GPT2Config(add_cross_attention=True)


# --- Our own page about this


def test_lines_of_coming_from_transformers(notebook):
    """The snippet of docs/from-transformers.md, from a repository to a GGUF file."""
    code = snippet(ROOT / "docs" / "from-transformers.md", "model.save_gguf")
    cell = notebook.run(code)
    assert cell.value[0]["generated_text"].startswith(PROMPT)
    with torchgguf.open_gguf(notebook.folder / "gpt2.gguf") as file:
        assert file.tensors["blk.0.attn_qkv.weight"].type.name == "Q8_0"

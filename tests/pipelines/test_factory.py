"""`pipeline` finds models and tokenizers where they are, and says in one line what it cannot do."""

import pytest
import torch
import transformers

import torchgguf
from tests.models.tiny import CASES, Case, counterpart, reference
from tests.pipelines.conftest import VOCAB
from torchgguf import AutoTokenizer, pipeline

CPU = {"device": "cpu"}
TEXT = "Hello, I'm a language model"


@pytest.fixture(scope="module")
def models(pair):
    return pair("LMHeadModel")


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """A checkpoint with its tokenizer and, in folders of their own, a GGUF file and a tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    models.ours.save_pretrained(folder)
    models.our_tokenizer.save_pretrained(folder)
    models.our_tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "gguf").mkdir()
    models.ours.save_gguf(folder / "gguf" / "model.gguf", tokenizer=models.our_tokenizer)
    return folder


@pytest.fixture(scope="module")
def expected(models):
    theirs = transformers.pipeline(
        "text-generation", model=models.theirs, tokenizer=models.their_tokenizer, **CPU
    )
    return theirs(TEXT, max_new_tokens=8, do_sample=False)


@pytest.mark.parametrize(
    "named",
    [
        lambda folder: {"task": "text-generation", "model": str(folder)},
        lambda folder: {"model": folder, "trust_remote_code": False, "use_fast": True},
        lambda folder: {"model": folder, "tokenizer": folder / "tokenizer", "local_files_only": True},
        lambda folder: {"model": folder / "gguf" / "model.gguf"},
        lambda folder: {"model": folder / "gguf", "gguf_file": "model.gguf"},
        lambda folder: {"model": folder / "gguf", "gguf_file": "model.gguf", "tokenizer": folder},
        lambda folder: {
            "model": folder,
            "model_kwargs": {"attn_implementation": "eager", "device_map": "cpu"},
        },
    ],
    ids=["folder", "path", "tokenizer", "gguf", "gguf_file", "gguf_file+tokenizer", "model_kwargs"],
)
def test_places(folder, expected, named):
    assert pipeline(**named(folder))(TEXT, max_new_tokens=8, do_sample=False) == expected


def test_what_is_saved_is_found_again(models, tmp_path, expected):
    made = pipeline("text-generation", model=models.ours, tokenizer=models.our_tokenizer, **CPU)
    made.save_pretrained(tmp_path)
    assert pipeline(model=tmp_path, **CPU)(TEXT, max_new_tokens=8, do_sample=False) == expected
    assert (
        transformers.pipeline("text-generation", model=str(tmp_path), **CPU)(
            TEXT, max_new_tokens=8, do_sample=False
        )
        == expected
    )


@pytest.mark.parametrize("model, tokenizer", [("theirs", "their_tokenizer"), ("ours", "their_tokenizer")])
def test_models_and_tokenizers_of_transformers(models, model, tokenizer, expected):
    made = pipeline(
        "text-generation", model=getattr(models, model), tokenizer=getattr(models, tokenizer), **CPU
    )
    assert made(TEXT, max_new_tokens=8, do_sample=False) == expected


@pytest.mark.parametrize(
    "stated",
    [
        {"dtype": torch.bfloat16},
        {"torch_dtype": "bfloat16"},
        {"model_kwargs": {"dtype": "bfloat16"}},
        {"model_kwargs": {"torch_dtype": torch.bfloat16}},
    ],
    ids=str,
)
def test_dtypes(folder, stated):
    assert pipeline(model=folder, **stated).dtype is torch.bfloat16


@pytest.mark.parametrize("name", ["llama", "mistral-sliding", "qwen2", "qwen2moe", "phi", "bloom", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_half_precision_on_a_cpu(name, dtype, tmp_path):
    """Packed to 8 bits, too: the states are near to those of transformers' FP32 model."""
    sizes = {"vocab_size": 50257, "shared_expert_intermediate_size": 96}  # rows of whole blocks
    kept = {key: size for key, size in sizes.items() if key == "vocab_size" or key in CASES[name].config}
    case = Case(CASES[name].kind, {**CASES[name].config, **kept})
    theirs, tokenizer = reference(case), AutoTokenizer.from_pretrained(VOCAB)
    counterpart(theirs).save_gguf(tmp_path / "x.gguf", tokenizer=tokenizer, quantization="Q8_0")
    features = pipeline("feature-extraction", model=tmp_path / "x.gguf", dtype=dtype, **CPU)
    states = theirs.base_model(torch.tensor([tokenizer(TEXT).input_ids])).last_hidden_state
    actual = features([TEXT, "A"], batch_size=2, return_tensors=True)[0]
    assert actual.dtype is dtype
    # Rounding to 8 bits alone makes 0.034 of it, with Llama.
    assert (actual.float() - states).std() < 0.045 * states.std()
    generate = pipeline("text-generation", model=tmp_path / "x.gguf", dtype=dtype, **CPU)
    (record,) = generate(TEXT, max_new_tokens=3, return_tensors=True)
    assert len(record["generated_token_ids"]) == len(tokenizer(TEXT).input_ids) + 3


@pytest.mark.parametrize(
    "stated, said",
    [
        ({"task": "juggling"}, "unknown task 'juggling'; known: text-generation"),
        ({"model": None}, "requires a model"),
        ({"tokenizer": None}, "a loaded model has no tokenizer"),
        ({"model": transformers.GPT2Config()}, "model= must be a path, .* got a transformers"),
        ({"tokenizer": 3}, "tokenizer= must be a path, .* got a builtins.int"),
        (
            {"task": "ner"},
            "GPT2LMHeadModel does not support token-classification: load .*TokenClassification",
        ),
        (
            {"dtype": "float16", "device_map": "auto"},
            "device_map, dtype: only for loading, .* loaded already",
        ),
        (
            {"dtype": "float16", "model_kwargs": {"dtype": "float32"}},
            "dtype is both an argument and in model_kwargs",
        ),
        ({"device": "cpu", "device_map": "auto"}, "either device or device_map, not both"),
        ({"device": "cuda:99"}, "device='cuda:99' is not available"),
        ({"device": "toaster"}, "device='toaster' is not available"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"task": "feature-extraction", "colour": "red"}, "feature-extraction: .*'colour'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said(models, stated, said):
    whole = {"model": models.ours, "tokenizer": models.our_tokenizer}
    with pytest.raises((ValueError, TypeError), match=said):
        pipeline(**{**whole, **stated})


def test_the_task_is_what_the_head_is_for(pair, models):
    for head, task in (
        ("LMHeadModel", "text-generation"),
        ("Model", "feature-extraction"),
        ("ForQuestionAnswering", "question-answering"),
    ):
        assert pipeline(model=pair(head).ours, tokenizer=models.our_tokenizer, **CPU).task == task


def test_features_are_of_the_model_without_its_head(models):
    headless = torchgguf.GPT2Model(models.ours.config)
    headless.load_state_dict(models.ours.transformer.state_dict())
    with_head, without = (
        pipeline("feature-extraction", model=model, tokenizer=models.our_tokenizer, **CPU)(TEXT)
        for model in (models.ours, headless)
    )
    assert with_head == without


def test_a_gpu_that_is_not_there_is_said_to_be_missing(models, caplog):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    generate = pipeline(model=models.ours, tokenizer=models.our_tokenizer, device=0)
    assert generate.device.type == "cpu"
    assert "device=0: there is no GPU" in caplog.text

"""T5 and UMT5 with their decoders: what transformers and llama.cpp's converter make of tiny models.

llama.cpp's server, which other tests ask for texts, runs no model with an encoder.
"""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch.testing import assert_close

import torchgguf
from tests.models.test_t5 import CASES, batch, counterpart
from tests.models.tiny import reference
from tests.peers.llama_cpp import convert
from tests.support import LLAMA_CPP
from torchgguf.models import AutoModel, AutoModelForSeq2SeqLM
from torchgguf.tokenization import AutoTokenizer

NAMES = ("t5-gated-odd-heads", "umt5", "t5-own-head")


@pytest.fixture(scope="module")
def originals() -> dict[str, Any]:
    """The last one has a head of its own, as T5 1.1, and fewer layers in the decoder."""
    case = CASES["t5"]
    changed = {**case.config, "num_decoder_layers": 2, "tie_word_embeddings": False}
    cases = {**CASES, "t5-own-head": type(case)(case.kind, changed)}
    models = {name: reference(cases[name], "AutoModelForSeq2SeqLM") for name in NAMES}
    head = torch.nn.Parameter(torch.randn_like(models["t5-own-head"].shared.weight) / 8)
    models["t5-own-head"].lm_head.weight = head
    return models


@pytest.fixture(scope="module")
def files(originals, tmp_path_factory) -> dict[str, Path]:
    if not LLAMA_CPP.exists():
        pytest.skip("llama.cpp's converter is not there: python scripts/fetch_models.py")
    return convert(originals, tmp_path_factory.mktemp("t5"), {})


def twin(originals: dict[str, Any], name: str, implementation: str = "sdpa") -> Any:
    if name != "t5-own-head":
        return counterpart(originals[name], implementation)
    config = torchgguf.AutoConfig.for_model(**originals[name].config.to_dict())
    config.tie_word_embeddings = False
    ours = torchgguf.T5ForConditionalGeneration(config, implementation).eval()
    ours.load_state_dict(originals[name].state_dict())
    return ours


def labels() -> torch.Tensor:
    """Tokens for the decoder, some to be ignored; another length than that of the prompts."""
    found = torch.randint(2, 400, (3, 37), generator=torch.Generator().manual_seed(1))
    return found.masked_fill(torch.arange(37) > torch.tensor([36, 20, 1])[:, None], -100)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_outputs_are_those_of_transformers(originals, name, implementation):
    theirs, ours = originals[name], twin(originals, name, implementation)
    options = {"output_hidden_states": True, "output_attentions": implementation == "eager"}
    inputs = {**batch("left"), "labels": labels(), **options}
    actual, expected = ours(**inputs), theirs(**inputs)
    assert type(actual).__name__ == type(expected).__name__
    assert [*actual.keys()] == [*expected.keys()] if options["output_attentions"] else True
    assert_close(actual.loss, expected.loss, atol=1e-4, rtol=0)
    assert_close(actual.logits, expected.logits, atol=1e-4, rtol=0)
    for key in ("decoder_hidden_states", "decoder_attentions", "cross_attentions"):
        for one, other in zip(actual.get(key, ()), expected.get(key) or (), strict=True):
            assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("checkpointing", [None, False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_transformers(originals, name, checkpointing):
    """Also if layers run again in the backward pass, with either way of torch's."""
    theirs, ours = originals[name], twin(originals, name).train()
    if checkpointing is not None:
        ours.gradient_checkpointing_enable({"use_reentrant": checkpointing})
    for model in (ours, theirs):
        model.zero_grad()
        model(**batch("right"), labels=labels(), use_cache=False).loss.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for parameter, expected in theirs.named_parameters():
        assert_close(gradients[parameter], expected.grad, atol=1e-4, rtol=1e-3, msg=parameter)


GENERATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "length": {"max_length": 12},
    "without-cache": {"use_cache": False, "max_new_tokens": 6},
    "static": {"cache_implementation": "static", "max_new_tokens": 6},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 8, "length_penalty": 0.5},
    "beams-without-cache": {"num_beams": 2, "max_new_tokens": 5, "use_cache": False},
    "begun": {"decoder_input_ids": torch.tensor([[0, 5], [0, 7], [0, 9]]), "max_new_tokens": 5},
    "begun-without-start": {
        "decoder_input_ids": torch.tensor([[5, 6], [7, 8], [9, 9]]),
        "decoder_attention_mask": torch.tensor([[1, 1], [1, 1], [0, 1]]),
        "max_new_tokens": 5,
    },
    "other-start": {"decoder_start_token_id": 7, "max_new_tokens": 5},
    "penalty": {"repetition_penalty": 2.0, "no_repeat_ngram_size": 2, "max_new_tokens": 9},
}


@pytest.mark.parametrize("how", GENERATIONS)
@pytest.mark.parametrize("name", ["t5-gated-odd-heads", "umt5"])
def test_texts_are_those_of_transformers(originals, name, how):
    options = GENERATIONS[how]
    expected = originals[name].generate(**batch("right"), **options)
    ours = twin(originals, name)
    assert ours.generate(**batch("right"), **options).tolist() == expected.tolist()


@pytest.mark.parametrize("beams", [1, 2])
def test_outputs_of_generate_are_those_of_transformers(originals, beams):
    options = dict.fromkeys(("output_scores", "output_attentions", "output_hidden_states"), True)
    options |= {"return_dict_in_generate": True, "num_beams": beams, "max_new_tokens": 4}
    actual = twin(originals, "umt5", "eager").generate(**batch("left"), **options)
    expected = originals["umt5"].generate(**batch("left"), **options)
    assert type(actual).__name__ == type(expected).__name__
    assert [*actual.keys()] == [*expected.keys()]
    assert actual.sequences.tolist() == expected.sequences.tolist()
    assert_close(actual.encoder_hidden_states, expected.encoder_hidden_states, atol=1e-4, rtol=0)
    for one, other in zip(actual.cross_attentions, expected.cross_attentions, strict=True):
        assert_close(one, other, atol=1e-4, rtol=0)


def test_ways_to_begin(originals):
    """What the encoder returned may be passed instead of the prompts, and read again with the same cache."""
    model, inputs = twin(originals, "umt5"), batch("right")
    expected = model.generate(**inputs, max_new_tokens=6)
    encoded = model.get_encoder()(**inputs)
    mask = inputs["attention_mask"]
    again = model.generate(encoder_outputs=encoded, attention_mask=mask, max_new_tokens=6)
    assert again.tolist() == expected.tolist()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    again = model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=6)
    assert again.tolist() == expected.tolist()
    drawn = model.generate(**inputs, do_sample=True, top_k=1, max_new_tokens=6)
    assert drawn.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="an encoder reads input_ids, inputs_embeds or encoder_outputs"):
        model.generate()
    with pytest.raises(ValueError, match="has no blocks for multi-token prediction"):
        model.generate(**inputs, assistant="mtp")


@torch.no_grad()
def test_the_cache_keeps_the_encoders_keys(originals, tmp_path):
    """Steps with a cache are those of the whole text, and a file of the cache goes on."""
    model, ids = twin(originals, "umt5"), labels().clamp(min=0)
    encoded = model.get_encoder()(**batch("right"))
    inputs = {"attention_mask": batch("right")["attention_mask"], "encoder_outputs": encoded}
    expected = model(decoder_input_ids=ids, **inputs, use_cache=False).logits
    cache = model(decoder_input_ids=ids[:, :20], **inputs).cache
    cache.save(tmp_path / "cache.gguf")
    for states in (cache, torchgguf.DynamicCache().load(tmp_path / "cache.gguf")):
        actual = model(decoder_input_ids=ids[:, 20:], cache=states, **inputs).logits
        assert_close(actual, expected[:, 20:], atol=1e-4, rtol=0)
        states.crop(20)
        states.reorder_cache(torch.tensor([0]))
        kept = {"encoder_outputs": (encoded[0][:1],), "attention_mask": inputs["attention_mask"][:1]}
        actual = model(decoder_input_ids=ids[:1, 20:], cache=states, **kept).logits
        assert_close(actual, expected[:1, 20:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_converted_file_is_read_and_written_back(originals, files, name, tmp_path, exact_products):
    model = AutoModelForSeq2SeqLM.from_pretrained(files[name])
    inputs = {**batch("right"), "decoder_input_ids": labels().clamp(min=0)}
    assert type(model).__name__ == type(originals[name]).__name__
    assert_close(model(**inputs).logits, originals[name](**inputs).logits, atol=1e-4, rtol=0)
    text = model.generate(**batch("right"), max_new_tokens=5)
    assert text.tolist() == originals[name].generate(**batch("right"), max_new_tokens=5).tolist()
    model.save_gguf(tmp_path / "again.gguf", tokenizer=AutoTokenizer.from_pretrained(files[name]))
    assert (tmp_path / "again.gguf").read_bytes() == files[name].read_bytes()
    base = AutoModel.from_pretrained(files[name])
    assert type(base).__name__ == f"{name.partition('-')[0].upper()}Model"
    assert_close(base(**inputs)[0], model(**inputs, output_hidden_states=True).decoder_hidden_states[-1])


@pytest.mark.parametrize("name", NAMES)
def test_from_a_folder_it_is_the_file_that_the_converter_makes(files, name, tmp_path):
    folder, path = files[name].with_suffix(""), tmp_path / "ours.gguf"
    torchgguf.convert_to_gguf(folder, path, quantization="F32")
    ours, theirs = gguf.GGUFReader(path), gguf.GGUFReader(files[name])
    tensors = {tensor.name: tensor for tensor in ours.tensors}
    assert tensors.keys() == {tensor.name for tensor in theirs.tensors}
    for expected in theirs.tensors:
        actual = tensors[expected.name]
        assert (actual.tensor_type, list(actual.shape)) == (expected.tensor_type, list(expected.shape))
        assert actual.data.tobytes() == expected.data.tobytes(), expected.name
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert ours.fields[key].contents() == pytest.approx(field.contents()), key
            assert ours.fields[key].types == field.types, key


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_checkpoints_of_either_library(originals, name, tmp_path):
    original = originals[name]
    inputs = {**batch("right"), "decoder_input_ids": labels().clamp(min=0)}
    original.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "theirs")
    assert_close(ours(**inputs).logits, original(**inputs).logits, atol=1e-4, rtol=0)
    ours.save_pretrained(tmp_path / "ours")
    again, info = type(original).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    assert_close(again.eval()(**inputs).logits, original(**inputs).logits, atol=1e-5, rtol=0)
    assert type(AutoModel.from_pretrained(tmp_path / "theirs")).__name__.removesuffix("Model") in name.upper()


def test_the_pipeline_answers_texts(originals, files):
    """Alone and in a batch, whose padding changes no answer; the task follows from the file."""
    name, texts = "umt5", ["The licenses for most software", "free"]
    tokenizer = AutoTokenizer.from_pretrained(files[name])
    answer = torchgguf.pipeline(model=files[name], device="cpu", max_new_tokens=9)
    assert answer.task == "text2text-generation"
    expected = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        tokens = originals[name].generate(ids, max_new_tokens=9)[0].tolist()
        expected.append([{"generated_text": tokenizer.decode(tokens, skip_special_tokens=True)}])
    assert [answer(text) for text in texts] == expected
    assert answer(texts, batch_size=2) == expected


def test_what_is_refused(originals, tmp_path):
    model = twin(originals, "umt5")
    model.config.scale_decoder_outputs = False
    with pytest.raises(ValueError, match="GGUF does not support scale_decoder_outputs=False with tie_word"):
        model.save_gguf(tmp_path / "x.gguf")
    model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="labels need decoder_start_token_id and pad_token_id"):
        model(**batch("right"), labels=labels())
    with pytest.raises(ValueError, match="starts with decoder_start_token_id, which is not set"):
        model.generate(**batch("right"), decoder_start_token_id=None)
    llama = torchgguf.LlamaForCausalLM(
        torchgguf.LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    )
    with pytest.raises(ValueError, match="LlamaForCausalLM has no encoder: leave out encoder_outputs"):
        llama.generate(torch.tensor([[1]]), decoder_input_ids=torch.tensor([[1]]))

"""Encoders: what transformers, llama.cpp's converter and its runtime make of the same tiny models."""

from itertools import product
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.files import edited
from tests.models.tiny import Case, counterpart, reference
from tests.peers.llama_cpp import convert, embeddings, run_converter
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf.container import GGUFError
from torchgguf.models import AutoModel
from torchgguf.models.io.checkpoint import CheckpointError
from torchgguf.tokenization import AutoTokenizer

_SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CASES = {
    "bert": Case("Bert", _SIZES),
    "bert-odd-heads": Case("Bert", {**_SIZES, "hidden_size": 96, "num_attention_heads": 3}),
    "bert-half": Case("Bert", {**_SIZES, "type_vocab_size": 3, "layer_norm_eps": 1e-5}),
}
# What the converter reads of released configs.
_NOMIC = {
    **{key: value for key, value in _SIZES.items() if key != "max_position_embeddings"},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    "n_positions": 8192,
    "n_embd": 64,
    "activation_function": "swiglu",
    **dict.fromkeys(("causal", "prenorm", "qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), False),
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
}
CASES |= {
    "nomic": Case("NomicBert", _NOMIC),
    "nomic-odd-heads": Case("NomicBert", {**_NOMIC, "hidden_size": 96, "num_attention_heads": 3}),
    "nomic-half": Case("NomicBert", {**_NOMIC, "type_vocab_size": 3, "layer_norm_eps": 1e-5}),
}
_MODERN = {
    **{key: value for key, value in _SIZES.items() if not key.endswith("_prob")},
    "num_hidden_layers": 5,
    "local_attention": 8,
    "layer_norm_eps": 1e-5,  # as released configs do besides, and the converter reads
    **{f"{name}_token_id": id for name, id in (("pad", 0), ("bos", 1), ("cls", 1), ("eos", 2), ("sep", 2))},
}
CASES |= {
    "modern": Case("ModernBert", _MODERN),
    "modern-odd-heads": Case("ModernBert", {**_MODERN, "hidden_size": 96, "num_attention_heads": 3}),
    "modern-half": Case(
        "ModernBert",
        {
            **_MODERN,
            **dict.fromkeys(("norm_eps", "layer_norm_eps"), 1e-4),
            "hidden_activation": "silu",
            "global_attn_every_n_layers": 2,
            "classifier_pooling": "mean",
        },
    ),
}
HALVES = {"bert-half": "f16", "nomic-half": "f16", "modern-half": "f16"}
LINES = ["The licenses for most software", "and other practical works are designed to take away your freedom"]


@pytest.fixture(scope="module")
def originals() -> dict[str, Any]:
    models = {name: reference(case, "AutoModel") for name, case in CASES.items()}
    for name in HALVES:
        for parameter in models[name].parameters():
            if parameter.dim() > 1:
                parameter.data = parameter.data.half().float()
    return models


@pytest.fixture(scope="module")
def files(originals, tmp_path_factory) -> dict[str, Path]:
    if not LLAMA_CPP.exists():
        pytest.skip("llama.cpp's converter is not there: python scripts/fetch_models.py")
    return convert(originals, tmp_path_factory.mktemp("encoders"), HALVES)


def batch(side: str, name: str = "bert") -> dict[str, torch.Tensor]:
    """Three rows, two with padding, which has other tokens; and kinds of both values."""
    ids = torch.randint(0, 400, (3, 24), generator=torch.Generator().manual_seed(0))
    places, lengths = torch.arange(24), torch.tensor([24, 11, 1])[:, None]
    mask = places < lengths if side == "right" else places >= 24 - lengths
    kinds = {} if name.startswith("modern") else {"token_type_ids": (ids > 200).long()}
    return {"input_ids": ids, "attention_mask": mask.long(), **kinds}


def twin(original: Any, implementation: str = "sdpa") -> Any:
    """The same model here, which has no pooler."""
    config = torchgguf.AutoConfig.for_model(**original.config.to_dict())
    model = AutoModel.from_config(config, attn_implementation=implementation).eval()
    model.load_state_dict({k: v for k, v in original.state_dict().items() if "pooler" not in k})
    return model


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_states_are_those_of_transformers(originals, name, side, implementation):
    theirs, inputs = originals[name], batch(side, name)
    ours, mask = twin(theirs, implementation), inputs["attention_mask"].bool()
    expected = theirs(**inputs, output_hidden_states=True)
    actual = ours(**inputs, output_hidden_states=True)
    assert type(actual).__name__ == type(expected).__name__
    assert_close(actual.last_hidden_state[mask], expected.last_hidden_state[mask], atol=1e-4, rtol=0)
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert_close(one[mask], other[mask], atol=1e-4, rtol=0)
    if implementation == "eager":
        theirs = theirs(**inputs, output_attentions=True).attentions
        for one, other in zip(ours(**inputs, output_attentions=True).attentions, theirs, strict=True):
            assert_close(one[0], other[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_other_inputs(originals):
    """A batch without kinds or mask, embeddings in place of tokens, positions of the caller."""
    theirs, ours = originals["bert"], twin(originals["bert"])
    ids = batch("right")["input_ids"]
    inputs = {"inputs_embeds": ours.get_input_embeddings()(ids), "position_ids": torch.arange(24)[None] + 5}
    for given in ({"input_ids": ids}, inputs):
        assert_close(ours(**given)[0], theirs(**given)[0], atol=1e-4, rtol=0)
    assert ours(ids, use_cache=True).cache is None
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        ours(ids, inputs_embeds=inputs["inputs_embeds"])
    with pytest.raises(ValueError, match="cache must be None: BertModel sees all positions at once"):
        ours(ids, past_key_values=torchgguf.DynamicCache())
    with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 7\), expected \(3, 24\)"):
        ours(ids, torch.ones(3, 7))
    with pytest.raises(ValueError, match="position_ids must be below max_position_embeddings=128, got 128"):
        ours(ids[:, :1].expand(-1, 129))


@pytest.mark.parametrize("how", ["packed", "plain"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_converted_file_is_read_and_written_back(originals, files, name, how, tmp_path, exact_products):
    model = AutoModel.from_pretrained(files[name], dequantize=how == "plain")
    inputs = batch("right", name)
    assert type(model).__name__ == type(originals[name]).__name__
    if name.startswith(("bert", "nomic")):
        assert model.config.type_vocab_size == originals[name].config.type_vocab_size
    mask = inputs["attention_mask"].bool()
    assert_close(model(**inputs)[0][mask], originals[name](**inputs)[0][mask], atol=1e-4, rtol=0)
    model.save_gguf(tmp_path / "again.gguf", tokenizer=AutoTokenizer.from_pretrained(files[name]))
    assert (tmp_path / "again.gguf").read_bytes() == files[name].read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_from_a_folder_it_is_the_file_that_the_converter_makes(files, name, tmp_path):
    folder, path = files[name].with_suffix(""), tmp_path / "ours.gguf"
    kind = HALVES.get(name, "f32").upper()
    torchgguf.convert_to_gguf(folder, path, quantization=kind)
    ours, theirs = gguf.GGUFReader(path), gguf.GGUFReader(files[name])
    tensors = {tensor.name: tensor for tensor in ours.tensors}
    assert tensors.keys() == {tensor.name for tensor in theirs.tensors}
    for expected in theirs.tensors:
        actual = tensors[expected.name]
        assert (actual.tensor_type, list(actual.shape)) == (expected.tensor_type, list(expected.shape))
        assert actual.data.tobytes() == expected.data.tobytes(), expected.name
    for key, field in theirs.fields.items():
        # The converter states what the tokenizer of released ModernBERTs does, whatever this one does.
        of_released = ("tokenizer.ggml.add_", "tokenizer.ggml.pre") if name.startswith("modern") else ()
        unlike = ("GGUF.", *of_released)
        if not key.startswith(unlike):
            assert ours.fields[key].contents() == pytest.approx(field.contents()), key
            assert ours.fields[key].types == field.types, key


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_embeds_as_this_package(originals, files, name, tmp_path):
    """Also from a file that is written from scratch. llama.cpp's gelu is an approximation in FP16."""
    tokenizer = AutoTokenizer.from_pretrained(files[name])
    twin(originals[name]).save_gguf(tmp_path / "scratch.gguf", tokenizer=tokenizer)
    model = AutoModel.from_pretrained(tmp_path / "scratch.gguf")
    with torch.no_grad():
        states = [model(**tokenizer(line, return_tensors="pt")).last_hidden_state[0] for line in LINES]
    pooled = {"mean": [each.mean(0) for each in states], "cls": [each[0] for each in states]}
    for path, (pooling, vectors) in zip(
        (files[name], tmp_path / "scratch.gguf"), pooled.items(), strict=True
    ):
        actual = torch.nn.functional.normalize(torch.stack(vectors), dim=-1)
        assert_close(actual, embeddings(path, LINES, pooling), atol=1e-3, rtol=0)


def test_saved_as_a_checkpoint_it_is_the_same_model_in_transformers(originals, files, tmp_path):
    """And checkpoints of other classes, of older versions, and with what is not here, load."""
    original, ids = originals["bert"], batch("right")["input_ids"]
    expected = original(ids)[0]
    AutoModel.from_pretrained(files["bert"]).save_pretrained(tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
    assert_close(again(ids)[0], expected, atol=1e-5, rtol=0)
    masked = transformers.BertForMaskedLM(original.config)
    masked.bert.load_state_dict(original.state_dict(), strict=False)
    masked.save_pretrained(tmp_path / "masked")
    assert_close(AutoModel.from_pretrained(tmp_path / "masked")(ids)[0], expected, atol=1e-4, rtol=0)
    torchgguf.convert_to_gguf(tmp_path / "masked", tmp_path / "masked.gguf", tokenizer=False)
    assert_close(AutoModel.from_pretrained(tmp_path / "masked.gguf")(ids)[0], expected, atol=1e-4, rtol=0)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in masked.state_dict().items()
    }
    (tmp_path / "masked" / "model.safetensors").unlink()
    torch.save(old, tmp_path / "masked" / "pytorch_model.bin")
    assert_close(AutoModel.from_pretrained(tmp_path / "masked")(ids)[0], expected, atol=1e-4, rtol=0)


def test_released_names_of_nomic_are_those_of_the_model(originals, tmp_path):
    """Both are read; transformers writes the first, we write the second."""
    original, ids = originals["nomic"], batch("right")["input_ids"]
    original.save_pretrained(tmp_path / "theirs")
    ours = AutoModel.from_pretrained(tmp_path / "theirs")
    assert torch.equal(ours(ids)[0], twin(original)(ids)[0])
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
    assert list(again.state_dict()) == list(ours.state_dict())
    assert_close(again(ids)[0], original(ids)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name, head",
    [
        *(("bert", head) for head in ("SequenceClassification", "TokenClassification", "QuestionAnswering")),
        *(("nomic", head) for head in ("SequenceClassification", "TokenClassification")),
        *(
            ("modern", head)
            for head in ("SequenceClassification", "TokenClassification", "QuestionAnswering")
        ),
        ("modern-half", "SequenceClassification"),
    ],
)
def test_heads(name, head):
    """And their gradients."""
    case, auto_class = CASES[name], f"AutoModelFor{head}"
    theirs = reference(Case(case.kind, {**case.config, "num_labels": 2}), auto_class)
    ours, inputs = counterpart(theirs, auto_class=auto_class), batch("right", name)
    mask = ... if "Sequence" in head else inputs["attention_mask"].bool()
    for field, expected in theirs(**inputs).items():
        assert_close(ours(**inputs)[field][mask], expected[mask], atol=1e-4, rtol=0)
    for model in (ours, theirs):
        sum(value[mask].square().sum() for value in model(**inputs).values()).backward()
    expected = dict(theirs.named_parameters())
    for parameter, value in ours.named_parameters():
        assert_close(value.grad, expected[parameter].grad, atol=1e-3, rtol=1e-3)


def test_a_file_whose_queries_keys_and_values_are_one_tensor(files, tmp_path):
    """As llama.cpp reads them, too."""
    model, parts = AutoModel.from_pretrained(files["bert"]), ("attn_q", "attn_k", "attn_v")
    with torchgguf.open_gguf(files["bert"]) as file:
        changes: dict[str, Any] = {}
        for i, kind in product(range(3), ("weight", "bias")):
            names = [f"blk.{i}.{part}.{kind}" for part in parts]
            changes |= {
                **dict.fromkeys(names),
                f"blk.{i}.attn_qkv.{kind}": torch.cat([file[n] for n in names]),
            }
        edited(files["bert"], tmp_path / "x.gguf", tensors=changes)
    again = AutoModel.from_pretrained(tmp_path / "x.gguf")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    vectors = embeddings(tmp_path / "x.gguf", LINES, "mean")
    assert_close(vectors, embeddings(files["bert"], LINES, "mean"), atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_file_without_kinds_of_tokens(originals, files, tmp_path):
    """As those of DistilBERT; and llama.cpp reads it, which requires the number of kinds."""
    model = AutoModel.from_pretrained(files["bert"])
    model.config.type_vocab_size, model.embeddings.token_type_embeddings = 0, None
    model.save_gguf(tmp_path / "x.gguf")
    again, ids = AutoModel.from_pretrained(tmp_path / "x.gguf"), batch("right")["input_ids"]
    assert again.config.type_vocab_size == 0
    assert torch.equal(again(ids)[0], model(ids)[0])
    assert len(embeddings(tmp_path / "x.gguf", LINES, "mean")) == 2


def test_what_is_refused(files, tmp_path):
    model = AutoModel.from_pretrained(files["bert"])
    model.save_gguf(tmp_path / "causal.gguf", metadata={"bert.attention.causal": True})
    with pytest.raises(GGUFError, match=r"attention\.causal = True: an encoder requires false"):
        AutoModel.from_pretrained(tmp_path / "causal.gguf")
    with pytest.raises(ValueError, match="is_decoder=True"):
        torchgguf.BertConfig(is_decoder=True)
    with pytest.raises(ValueError, match="num_attention_heads must be a positive divisor"):
        torchgguf.BertConfig(num_attention_heads=5)
    with pytest.raises(
        CheckpointError, match=r"LlamaModel does not load models of .*'bert'.*: use BertModel"
    ):
        torchgguf.LlamaModel.from_pretrained(files["bert"].with_suffix(""))
    with pytest.raises(
        ValueError, match=r"no class for model_type 'bert', which has: BertModel, .*docs/models"
    ):
        torchgguf.AutoModelForCausalLM.from_pretrained(files["bert"])
    model = AutoModel.from_config(torchgguf.BertConfig(**_SIZES, hidden_act="relu"))
    with pytest.raises(ValueError, match="GGUF does not support hidden_act='relu'"):
        model.save_gguf(tmp_path / "relu.gguf")


@torch.no_grad()
def test_a_file_of_roberta(tmp_path):
    """The converter writes it as BERT's, without the rows of positions that RoBERTa never uses."""
    if not LLAMA_CPP.exists():
        pytest.skip("llama.cpp's converter is not there: python scripts/fetch_models.py")
    torch.manual_seed(0)
    sizes = {**_SIZES, "type_vocab_size": 1, "pad_token_id": 1}
    theirs = transformers.RobertaModel(transformers.RobertaConfig(**sizes)).eval()
    theirs.save_pretrained(tmp_path / "hf")
    add_tokenizer(tmp_path / "hf", "gpt2")
    run_converter(
        [str(tmp_path / "hf"), "--outfile", str(tmp_path / "x.gguf"), "--outtype", "f32"], "roberta-bpe"
    )
    ours = AutoModel.from_pretrained(tmp_path / "x.gguf")
    assert ours.config.max_position_embeddings == 126
    ids = torch.randint(2, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    assert_close(ours(ids)[0], theirs(ids)[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_file_of_distilbert(tmp_path):
    """It has no kinds of tokens."""
    if not LLAMA_CPP.exists():
        pytest.skip("llama.cpp's converter is not there: python scripts/fetch_models.py")
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=400, dim=64, hidden_dim=96, n_layers=3, n_heads=4, max_position_embeddings=128
    )
    theirs = transformers.DistilBertModel(config).eval()
    theirs.save_pretrained(tmp_path / "hf")
    add_tokenizer(tmp_path / "hf", "bert")
    run_converter(
        [str(tmp_path / "hf"), "--outfile", str(tmp_path / "x.gguf"), "--outtype", "f32"], "bert-bge"
    )
    ours = AutoModel.from_pretrained(tmp_path / "x.gguf")
    ids = torch.randint(2, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    assert_close(ours(ids)[0], theirs(ids)[0], atol=1e-4, rtol=0)

"""Models of transformers, packed while it loads them: saved, loaded again, trained, and unpacked."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close

import torchgguf
from tests.models.case import SIZES
from tests.models.tiny import CASES, reference
from torchgguf.nn import PackedLayer

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
# Some that are not models here, too.
OTHERS = {
    "GPTNeoX": {},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "Persimmon": {},
    "GPTJ": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_inner": 96},
    "OPT": {"ffn_dim": 96, "word_embed_proj_dim": 64},
}


def checkpoint(name, folder):
    if name in CASES:
        model = reference(CASES[name])
    else:
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**{**SIZES, **OTHERS[name]})
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    model.save_pretrained(folder)
    return model


def load(folder, quantization=None, **options):
    if quantization is not None:
        options["quantization_config"] = torchgguf.GGUFQuantizationConfig(quantization)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options)


def packed(model):
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, PackedLayer)}


@pytest.mark.parametrize(
    ("name", "quantization"),
    [("llama", "Q8_0"), ("llama-tied", "Q4_K_M"), ("gpt2", "Q8_0"), ("qwen2moe", "Q8_0")]
    + [(name, "Q8_0") for name in OTHERS],
)
@torch.no_grad()
def test_packed_saved_and_loaded(name, quantization, tmp_path):
    original = checkpoint(name, tmp_path / "plain")
    model = load(tmp_path / "plain", quantization)
    assert type(model) is type(original) and model.hf_quantizer.is_trainable
    layers = packed(model)
    assert len(layers) >= 8
    for path, layer in layers.items():  # as gguf-py packs, its own tests say
        blocks = layer.dequantize().get_parameter("weight")
        assert_close(blocks, original.get_submodule(path).weight, atol=0.2, rtol=0.1)
    expected = model(IDS).logits
    wanted = original(IDS).logits
    assert (expected - wanted).norm() < (0.05 if quantization == "Q8_0" else 0.25) * wanted.norm()
    model.save_pretrained(tmp_path / "packed")
    again = load(tmp_path / "packed")
    assert packed(again).keys() == layers.keys()
    assert torch.equal(again(IDS).logits, expected)
    stated = again.config.quantization_config
    assert stated.quant_method == "torchgguf" and stated.types.keys() == layers.keys()


def test_a_recipe_chooses_as_for_our_model(tmp_path):
    checkpoint("llama", tmp_path)
    theirs = packed(load(tmp_path, "Q5_K_M"))
    config = torchgguf.GGUFQuantizationConfig("Q5_K_M")
    ours = packed(torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config))
    assert {path: layer.quant_type for path, layer in theirs.items()} == {
        path: layer.quant_type for path, layer in ours.items()
    }
    for path, layer in ours.items():
        assert torch.equal(theirs[path].weight, layer.weight), path


def test_modules_that_stay_plain(tmp_path):
    checkpoint("llama", tmp_path)
    config = torchgguf.GGUFQuantizationConfig("Q4_0", modules_to_not_convert=["lm_head", "q_proj"])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config)
    assert packed(model) and not any(path.endswith(("lm_head", "q_proj")) for path in packed(model))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_trained_with_peft(tmp_path):
    """By Trainer, which refuses a quantized model without adapters; merged, and unpacked."""
    checkpoint("GPTNeoX", tmp_path / "plain")
    model = load(tmp_path / "plain", "Q8_0")
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", r=4))
    rows = [{"input_ids": IDS[0], "labels": IDS[0]}] * 8
    arguments = transformers.TrainingArguments(
        tmp_path / "out",
        max_steps=8,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(adapted, arguments, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    with torch.no_grad():
        expected = adapted.eval()(IDS).logits
        merged = adapted.merge_and_unload()
        assert (merged(IDS).logits - expected).norm() < 0.1 * expected.norm()
        plain = merged.dequantize()
        assert not packed(plain)
        assert_close(plain(IDS).logits, merged(IDS).logits)


def test_an_unknown_type_is_named():
    with pytest.raises(ValueError, match="Q9_K"):
        torchgguf.GGUFQuantizationConfig("Q9_K")

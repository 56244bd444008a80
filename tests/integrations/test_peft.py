"""PEFT's adapters on packed models: they learn as beside the unpacked weights, and merge into the blocks."""

import subprocess
import sys

import gguf
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close

import torchgguf
from tests.models.case import Case
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.nn import PackedLayer

IDS = torch.randint(3, 390, (2, 24), generator=torch.Generator().manual_seed(0))
WIDE = Case(  # rows of whole blocks of 256
    "Llama", {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}
)
ALL = {**CASES, "wide": WIDE}
ALL_LINEAR = {"target_modules": "all-linear"}
EXPERTS = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}


@pytest.fixture(scope="module")
def packed_file(tmp_path_factory):
    """Write a case as a file whose matrices are of a type, once."""
    folder = tmp_path_factory.mktemp("packed")

    def write(name, kind):
        path = folder / f"{name}-{kind}.gguf"
        if not path.exists():
            recipe = torchgguf.packing.Quantization(kind, pure=True)
            counterpart(reference(ALL[name])).save_gguf(path, quantization=recipe)
        return path

    return write


def load(path, **options):
    return torchgguf.AutoModelForCausalLM.from_pretrained(path, **options)


def adapted(model, scale=0.05, **settings):
    """Put random adapters into a model; those of models with the same layers are the same."""
    result = get_peft_model(model, LoraConfig(r=4, **settings))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in sorted(result.named_parameters()):
        if parameter.requires_grad and "lora_" in name and "magnitude" not in name:
            parameter.data.normal_(std=scale, generator=generator)
    return result


def gradients(model):
    loss = model.train()(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("llama", "Q8_0", ALL_LINEAR),
        ("llama-biases", "Q4_0", {**ALL_LINEAR, "use_rslora": True, "lora_alpha": 16}),
        ("llama", "IQ4_NL", {**ALL_LINEAR, "use_dora": True}),
        ("llama", "Q5_1", {**ALL_LINEAR, "use_dora": True, "lora_dropout": 0.3}),
        ("wide", "Q4_K", ALL_LINEAR),
        ("wide", "Q2_K", ALL_LINEAR),
        ("wide", "Q6_K", {"target_modules": ["q_proj", "down_proj"], "bias": "all"}),
        ("wide", "IQ3_S", {**ALL_LINEAR, "use_dora": True}),
        ("wide", "TQ2_0", ALL_LINEAR),
        ("llama-tied", "Q8_0", {"target_modules": ["embed_tokens", "o_proj"]}),
        ("gemma3", "Q8_0", {"target_modules": ["embed_tokens", "up_proj"]}),
        ("gpt2", "Q8_0", ALL_LINEAR),
        ("gpt2", "Q4_1", {**ALL_LINEAR, "use_dora": True}),
        ("bloom", "Q8_0", ALL_LINEAR),
        ("phi-long-partial", "Q8_0", ALL_LINEAR),
        ("qwen3next", "Q8_0", ALL_LINEAR),
        ("mamba", "Q8_0", {"target_modules": ["in_proj", "x_proj", "dt_proj"]}),
        ("deepseek3", "Q8_0", ALL_LINEAR),
        ("qwen2moe", "Q8_0", EXPERTS),
        ("mixtral", "MXFP4", EXPERTS),
    ],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_gradients_are_those_beside_unpacked_weights(name, kind, settings, packed_file):
    losses, found = [], []
    for options in ({}, {"dequantize": True}):
        torch.manual_seed(0)
        model = adapted(load(packed_file(name, kind), **options), **settings)
        torch.manual_seed(1)  # of dropout
        loss, grads = gradients(model)
        losses.append(loss)
        found.append(grads)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    ours, expected = found
    adapters = {key for key in expected if "lora_" in key}
    assert adapters and ours.keys() & adapters == adapters
    for key in ours:
        if expected[key] is None or not expected[key].any():
            assert ours[key] is None or not ours[key].any()
            continue
        cosine = torch.cosine_similarity(ours[key].flatten(), expected[key].flatten(), dim=0)
        assert cosine > 0.9999, key
        assert_close(ours[key].norm(), expected[key].norm(), rtol=1e-3, atol=0)


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    ("name", "kind", "targets"),
    [
        ("qwen2", "Q8_0", {"q_proj": "attn_q", "down_proj": "ffn_down"}),
        ("llama-tied", "Q8_0", {"embed_tokens": "token_embd"}),
        ("gpt2", "Q4_0", {"c_attn": "attn_qkv"}),
    ],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:Input and output embed")
def test_merged_weights_are_packed_again(name, kind, targets, packed_file, tmp_path):
    """As gguf-py packs the sums; all other tensors are the bytes of the file."""
    path = packed_file(name, kind)
    model = adapted(load(path), target_modules=[*targets])
    deltas = {}
    for layer_path, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            delta = layer.get_delta_weight("default").detach()
            rows = delta.T if getattr(layer, "fan_in_fan_out", False) and "embed" not in layer_path else delta
            target = layer_path.rpartition(".")[2]
            block = next((part for part in layer_path.split(".") if part.isdigit()), None)
            deltas[f"blk.{block}.{targets[target]}.weight" if block else f"{targets[target]}.weight"] = rows
    merged = model.merge_and_unload()
    assert not any("lora" in key for key in merged.state_dict())
    merged.save_gguf(tmp_path / "merged.gguf")
    before, after = tensors(path), tensors(tmp_path / "merged.gguf")
    assert deltas.keys() < before.keys()
    for key, tensor in before.items():
        if key in deltas:
            sums = gguf.quants.dequantize(tensor.data, tensor.tensor_type) + deltas[key].numpy()
            assert (after[key].data == gguf.quants.quantize(sums, tensor.tensor_type)).all(), key
        else:
            assert after[key].tensor_type == tensor.tensor_type
            assert (after[key].data == tensor.data).all(), key
    extra = after.keys() - before.keys()
    assert extra <= {"output.weight"}  # the head no longer shares weights that changed
    for key in extra:
        assert (after[key].data == before["token_embd.weight"].data).all()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", ALL_LINEAR),
        ("llama", {**ALL_LINEAR, "use_dora": True}),
        ("gpt2", ALL_LINEAR),
        ("qwen2moe", EXPERTS),
        ("qwen3next", ALL_LINEAR),
    ],
)
@torch.no_grad()
def test_merging_and_back(name, settings, packed_file):
    """Two adapters are merged, one after the other; without them all blocks are as they were."""
    path = packed_file(name, "Q8_0")
    model = adapted(load(path), **settings).eval()
    original = {k: v.clone() for k, v in model.state_dict().items() if v.dtype is torch.uint8}
    expected = model(input_ids=IDS).logits
    with model.disable_adapter():
        effect = (model(input_ids=IDS).logits - expected).norm()
    model.merge_adapter()
    assert (model(input_ids=IDS).logits - expected).norm() < 0.5 * effect  # what packing again has lost
    changed = [key for key, value in original.items() if not torch.equal(model.state_dict()[key], value)]
    assert changed
    model.unmerge_adapter()
    for key, value in original.items():
        assert torch.equal(model.state_dict()[key], value), key
    assert_close(model(input_ids=IDS).logits, expected, atol=1e-4, rtol=0)  # plain gates are not exact
    if "target_parameters" in settings:
        return
    model.add_adapter("second", LoraConfig(r=2, init_lora_weights=False, **settings))
    model.base_model.merge_adapter(["default"])
    model.base_model.merge_adapter(["second"])
    steps = {k: v.clone() for k, v in model.state_dict().items() if k in original}
    model.unmerge_adapter()
    model.base_model.merge_adapter(["default", "second"])
    for key, value in steps.items():
        assert torch.equal(model.state_dict()[key], value), key
    unloaded = model.unload()
    assert not any("lora" in key for key in unloaded.state_dict())


@pytest.mark.parametrize("safe", [True, False])
def test_merging_into_unpacked_weights_is_exact(safe, packed_file):
    """For those who want no more errors of packing: unpack the adapted model first."""
    model = adapted(load(packed_file("wide", "Q2_K")), **ALL_LINEAR).eval()
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
        model.get_base_model().dequantize()
        merged = model.merge_and_unload(safe_merge=safe)
        assert not any(isinstance(layer, PackedLayer) for layer in merged.modules())
        assert_close(merged(IDS).logits, expected, atol=1e-3, rtol=0)


@torch.no_grad()
def test_adapters_are_those_of_transformers_models(packed_file, tmp_path):
    """Saved beside packed weights, loaded beside packed ones here and beside transformers' own layers."""
    for name, settings in [("llama", ALL_LINEAR), ("qwen2moe", EXPERTS), ("gpt2", ALL_LINEAR)]:
        path = packed_file(name, "Q8_0")
        model = adapted(load(path), **settings).eval()
        folder = tmp_path / name
        model.save_pretrained(folder)
        expected = model(input_ids=IDS).logits
        again = PeftModel.from_pretrained(load(path), folder).eval()
        assert torch.equal(again(input_ids=IDS).logits, expected)
        theirs = reference(ALL[name])
        theirs.load_state_dict(load(path, dequantize=True).state_dict())
        their_model = PeftModel.from_pretrained(theirs, folder).eval()
        assert_close(their_model(input_ids=IDS).logits, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:Input and output embed")
def test_saved_modules_are_unpacked(name, packed_file, tmp_path):
    path = packed_file(name, "Q8_0")
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    ours, plain = (adapted(load(path, **options), **settings) for options in ({}, {"dequantize": True}))
    losses = []
    for model in (ours, plain):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            losses.append(gradients(model)[0])
            optimizer.step()
    assert losses[:2] == pytest.approx(losses[2:], abs=1e-4)
    assert losses[1] < losses[0]
    ours.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load(path), tmp_path / "adapter")
    with torch.no_grad():
        expected = ours.eval()(input_ids=IDS).logits
        assert_close(again.eval()(input_ids=IDS).logits, expected)
        merged = again.merge_and_unload()
        merged.save_gguf(tmp_path / "merged.gguf")
        # The query's matrices are packed again.
        assert_close(load(tmp_path / "merged.gguf")(IDS).logits, expected, atol=0.3, rtol=0.05)


def test_principal_components(packed_file):
    """PiSSA takes the largest singular values out of the weights, which are packed again."""
    path = packed_file("wide", "Q8_0")
    model = get_peft_model(load(path), LoraConfig(r=8, target_modules=["q_proj"], init_lora_weights="pissa"))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    before = load(path).model.layers[0].self_attn.q_proj.dequantize().weight
    after = layer.base_layer.dequantize().weight
    assert isinstance(layer.base_layer, PackedLayer)
    whole = after + layer.get_delta_weight("default")
    assert (whole - before).norm() < 0.01 * before.norm()
    assert torch.linalg.matrix_norm(after, 2) < torch.linalg.matrix_norm(before, 2)


def test_other_methods_say_what_to_do(packed_file):
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    with pytest.raises(ValueError, match=r"whose weights are packed \(call model\.dequantize"):
        get_peft_model(load(packed_file("llama", "Q8_0")), config)


def test_peft_may_be_imported_last(packed_file):
    code = f"""
import sys, torchgguf
model = torchgguf.AutoModelForCausalLM.from_pretrained({str(packed_file("llama", "Q8_0"))!r})
assert "peft" not in sys.modules
from peft import LoraConfig, get_peft_model
adapted = get_peft_model(model, LoraConfig(target_modules="all-linear"))
assert len(adapted.targeted_module_names) == 21
adapted.merge_and_unload()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

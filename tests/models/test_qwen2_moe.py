"""Qwen2-MoE: what it has beyond all decoders, of which the tests of all tiny models tell."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.models.files import edited, packed
from tests.models.tiny import CASES, EXPERTS, UNWRITABLE, Case, counterpart, reference
from torchgguf.container import GGUFError, open_gguf
from torchgguf.models import AutoModelForCausalLM, Qwen2MoeConfig
from torchgguf.nn import QuantizedExperts

MIXTURES = {name: case for name, case in (CASES | UNWRITABLE).items() if case.kind == "Qwen2Moe"}
EXPERT_TYPES = {"gate": "Q4_0", "up": "Q8_0", "down": "Q5_1"}


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("moe") / "plain.gguf"
    counterpart(reference(CASES["qwen2moe"])).save_gguf(path)
    return path


@pytest.fixture(scope="module")
def packed_file(plain_file) -> Path:
    """The same model with experts of three types."""
    tensors = {}
    with open_gguf(plain_file) as file:
        for layer in range(3):
            for matrix, kind in EXPERT_TYPES.items():
                name = f"blk.{layer}.ffn_{matrix}_exps.weight"
                tensors[name] = packed(file[name], kind)
    return edited(plain_file, plain_file.with_name("packed.gguf"), tensors=tensors)


def padded(vocab_size: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, a mask, and labels, of which none is told by padding."""
    ids = torch.randint(0, vocab_size, (2, 14), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(14) >= torch.tensor([[4], [0]])).long()
    labels = ids.masked_fill(mask == 0, -100)
    labels[0, 4] = -100
    return ids, mask, labels


@pytest.mark.parametrize("name", MIXTURES)
def test_router_logits_and_the_loss_of_balance(name):
    """Both losses, what routers say, and all gradients."""
    model = reference(MIXTURES[name])
    twin, (ids, mask, labels) = counterpart(model).train(), padded()
    inputs = {"attention_mask": mask, "labels": labels, "output_router_logits": True}
    expected, actual = model(ids, **inputs), twin(ids, **inputs)
    assert_close(actual.loss, expected.loss, atol=1e-5, rtol=0)
    assert_close(actual.aux_loss, expected.aux_loss, atol=1e-5, rtol=0)
    assert actual.keys() == tuple(expected.keys())
    told = mask.flatten().bool()
    for ours, theirs in zip(actual.router_logits, expected.router_logits, strict=True):
        assert_close(ours[told], theirs[told], atol=1e-5, rtol=1e-4)
    expected.loss.backward()
    actual.loss.backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in model.named_parameters():
        assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("stated", [True, False])
def test_the_config_says_whether_router_logits_are_wanted(stated):
    case = Case("Qwen2Moe", {**EXPERTS, "output_router_logits": stated, "router_aux_loss_coef": 0.5})
    model, (ids, mask, labels) = reference(case), padded()
    twin = counterpart(model)
    expected, actual = model(ids, mask, labels=labels), twin(ids, mask, labels=labels)
    assert actual.keys() == tuple(expected.keys())
    assert ("router_logits" in actual) is stated
    assert_close(actual.loss, expected.loss, atol=1e-5, rtol=0)
    assert twin.model(ids, mask).keys() == tuple(model.model(ids, mask).keys())
    assert "router_logits" not in twin(ids, mask, output_router_logits=False)
    assert len(twin.model(ids, mask, output_router_logits=True, return_dict=False)) == 3


@torch.no_grad()
def test_router_logits_of_two_threads_stay_apart():
    """Each gets what it would get alone."""
    model = counterpart(reference(CASES["qwen2moe"]))
    texts = [torch.randint(0, 400, (1, length)) for length in (3, 5, 7, 9)]
    expected = [model(ids, output_router_logits=True).router_logits for ids in texts]

    def run(number):
        with torch.no_grad():
            for _ in range(20):
                said = model(texts[number], output_router_logits=True).router_logits
                assert [len(logits) for logits in said] == [len(logits) for logits in expected[number]]
                assert_close(said, expected[number])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))


def test_gradient_checkpointing_keeps_the_gradients_of_balance():
    model, (ids, mask, labels) = counterpart(reference(CASES["qwen2moe"])).train(), padded()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        output = model(ids, mask, labels=labels, output_router_logits=True, use_cache=False)
        (output.loss + output.aux_loss).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for actual, expected in zip(*gradients, strict=True):
        assert_close(actual, expected)


@torch.no_grad()
def test_packed_experts_stay_as_they_lie_in_the_file(packed_file, tmp_path, exact_products):
    model = AutoModelForCausalLM.from_pretrained(packed_file)
    with open_gguf(packed_file) as file:
        for layer, block in enumerate(model.model.layers):
            experts = block.mlp.experts
            assert isinstance(experts, QuantizedExperts)
            for matrix, kind in EXPERT_TYPES.items():
                assert experts.quant_types[f"{matrix}_proj"].name == kind
                stored = file[f"blk.{layer}.ffn_{matrix}_exps.weight"]
                assert torch.equal(getattr(experts, f"{matrix}_proj"), stored)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == packed_file.read_bytes()


@torch.no_grad()
def test_packed_experts_say_what_transformers_says_with_their_weights(packed_file, exact_products):
    """Those that gguf-py unpacks are given to transformers."""
    theirs, state = reference(CASES["qwen2moe"]), {}
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(packed_file).tensors}
    for layer in range(3):
        gate, up, down = (
            torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
            for tensor in (tensors[f"blk.{layer}.ffn_{matrix}_exps.weight"] for matrix in EXPERT_TYPES)
        )
        experts = f"model.layers.{layer}.mlp.experts"
        state |= {f"{experts}.gate_up_proj": torch.cat([gate, up], dim=1), f"{experts}.down_proj": down}
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    ids, mask, _ = padded()
    expected = theirs(ids, mask).logits[mask.bool()]
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}
    for dequantize in (False, True):
        ours = AutoModelForCausalLM.from_pretrained(packed_file, dequantize=dequantize)
        assert_close(ours(ids, mask).logits[mask.bool()], expected, atol=1e-4, rtol=0)
        assert torch.equal(ours.generate(ids, **options), theirs.generate(ids, **options))
    unpacked = AutoModelForCausalLM.from_pretrained(packed_file).dequantize()
    assert unpacked.state_dict().keys() == theirs.state_dict().keys()
    assert_close(unpacked(ids, mask).logits[mask.bool()], expected, atol=1e-4, rtol=0)


def test_gradients_reach_what_lies_below_packed_experts(packed_file, exact_products):
    """Norms train, with the gradients that they have over the same weights unpacked."""
    ids, mask, labels = padded()
    gradients = []
    for dequantize in (False, True):
        model = AutoModelForCausalLM.from_pretrained(packed_file, dequantize=dequantize)
        model(ids, mask, labels=labels).loss.backward()
        gradients.append([layer.post_attention_layernorm.weight.grad for layer in model.model.layers])
    for actual, expected in zip(*gradients, strict=True):
        assert_close(actual, expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_bfloat16_activations(packed_file):
    model = AutoModelForCausalLM.from_pretrained(packed_file, dtype=torch.bfloat16)
    assert model(padded()[0]).logits.dtype == torch.bfloat16
    unpacked = AutoModelForCausalLM.from_pretrained(packed_file, dtype=torch.bfloat16, dequantize=True)
    assert {parameter.dtype for parameter in unpacked.parameters()} == {torch.bfloat16}
    assert unpacked(padded()[0]).logits.dtype == torch.bfloat16


@torch.no_grad()
def test_files_from_before_the_widths_were_stated(plain_file, tmp_path):
    """The first converters wrote neither width, and the shared expert's gate as a vector."""
    keys = ("expert_feed_forward_length", "expert_shared_feed_forward_length")
    with open_gguf(plain_file) as file:
        vectors = {
            name: file[name][0].clone() for name in file.tensors if name.endswith("ffn_gate_inp_shexp.weight")
        }
    old = edited(
        plain_file, tmp_path / "old.gguf", metadata={f"qwen2moe.{key}": None for key in keys}, tensors=vectors
    )
    ids = padded()[0]
    model = AutoModelForCausalLM.from_pretrained(old)
    assert torch.equal(model(ids).logits, AutoModelForCausalLM.from_pretrained(plain_file)(ids).logits)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == old.read_bytes()


@pytest.mark.parametrize(
    "name, said",
    [
        ("qwen2moe-normalised", "norm_topk_prob=True"),
        ("qwen2moe-dense-layer", r"mlp_only_layers=\[1\]|layers.1.mlp.gate_proj"),
        ("qwen2moe-every-other", r"decoder_sparse_step=2|layers.0.mlp.gate_proj"),
        ("qwen2moe-sliding", "use_sliding_window=True"),
    ],
)
def test_what_gguf_cannot_say_is_refused(name, said, tmp_path):
    with pytest.raises(ValueError, match=f"GGUF .*({said})"):
        counterpart(reference(UNWRITABLE[name])).save_gguf(tmp_path / "no.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "metadata, said",
    [
        ({"qwen2moe.expert_count": 8}, r"blk.0.ffn_gate_inp.weight has shape \(7, 64\), expected \(8, 64\)"),
        ({"qwen2moe.expert_count": None}, "expert_count is missing"),
        ({"qwen2moe.expert_used_count": 8}, "num_experts_per_tok must be from 1 to 7, got 8"),
        ({"qwen2moe.expert_used_count": 10**9}, "expert_used_count = 1000000000 is invalid"),
        ({"qwen2moe.expert_feed_forward_length": 33}, "moe_intermediate_size is 32 .* but 33 by other keys"),
        ({"qwen2moe.expert_weights_norm": True}, "expert_weights_norm"),
        ({"qwen2moe.attention.sliding_window": 7}, "sliding windows are unsupported"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_file_says_wrongly_is_refused(plain_file, metadata, said, tmp_path):
    with pytest.raises(GGUFError, match=said):
        AutoModelForCausalLM.from_pretrained(edited(plain_file, tmp_path / "wrong.gguf", metadata=metadata))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"use_sliding_window": True, "max_window_layers": 5, "sliding_window": 16},
        {"mlp_only_layers": [0, 3]},
        {"mlp_only_layers": None},
    ],
    ids=str,
)
def test_config_fills_in_what_transformers_fills_in(given):
    ours, theirs = Qwen2MoeConfig(**given), transformers.Qwen2MoeConfig(**given)
    assert ours.layer_types == theirs.layer_types
    assert ours.mlp_only_layers == theirs.mlp_only_layers
    told, expected = ours.to_dict(), theirs.to_dict()
    for name in (
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "hidden_size",
        "num_hidden_layers",
    ):
        assert told[name] == expected[name]


def test_more_experts_a_token_than_there_are():
    with pytest.raises(ValueError, match="num_experts_per_tok must be from 1 to 8, got 9"):
        Qwen2MoeConfig(num_experts=8, num_experts_per_tok=9)

"""Parts of decoders beyond what the architectures of today ask of them."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.models.tiny import CASES, EXPERTS, SIZES, counterpart, reference
from torchgguf import LlamaConfig, LlamaForCausalLM, LlamaModel, Qwen2MoeConfig, Qwen2MoeForCausalLM
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.step import Step, StepRecord
from torchgguf.models.core.argument_order import in_order
from torchgguf.nn import ATTENTION_FUNCTIONS, AttentionMask, Rotation

CONFIG = LlamaConfig(**SIZES)


def step(new: int, **fields) -> Step:
    angles = torch.zeros(1, new, 1, CONFIG.head_dim)
    masks = {None: AttentionMask(None, causal=True)}
    return Step(
        masks, ATTENTION_FUNCTIONS["eager"], {"default": Rotation(angles + 1, angles, None)}, **fields
    )


def filled(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)
    return layer


def parts(layer: nn.Module) -> set[str]:
    return {name.partition(".")[0] for name, _ in layer.named_parameters()}


@torch.no_grad()
def test_layers_of_one_mixer():
    """A layer may lack its MLP or its mixer: it then has the other's norm only, and adds nothing else."""
    x = torch.randn(2, 5, CONFIG.hidden_size)
    mixer = filled(DecoderLayer(CONFIG, Attention(CONFIG, 0), None))
    assert {name.partition(".")[0] for name, _ in mixer.named_parameters()} == {
        "self_attn",
        "input_layernorm",
    }
    assert_close(mixer(x, step(5)), x + mixer.self_attn(mixer.input_layernorm(x), step(5)))
    mlp = filled(DecoderLayer(CONFIG, None, MLP(CONFIG)))
    assert {name.partition(".")[0] for name, _ in mlp.named_parameters()} == {
        "mlp",
        "post_attention_layernorm",
    }
    assert_close(mlp(x, step(5)), x + mlp.mlp(mlp.post_attention_layernorm(x)))


class Doubling(nn.Module):
    """A mixer of another kind, under another name."""

    layer_name = "doubling"

    def forward(self, x, step):
        return 2 * x


def test_a_layer_does_not_ask_which_mixer_it_has():
    layer = DecoderLayer(CONFIG, Doubling(), None)
    x = torch.randn(1, 3, CONFIG.hidden_size)
    assert isinstance(layer.doubling, Doubling)
    assert_close(layer(x, step(3)), x + 2 * layer.input_layernorm(x))


class DoublingModel(LlamaModel):
    """A decoder whose second layer has no attention."""

    def make_layer(self, config, layer_idx):
        mixer = Doubling() if layer_idx == 1 else Attention(config, layer_idx)
        return DecoderLayer(config, mixer, MLP(config))


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_recorded_while_checkpointing(reentrant):
    """Recorded tensors are those of a plain forward, in its order, and gradients come through them."""
    torch.manual_seed(0)
    model = DoublingModel(CONFIG, attn_implementation="eager").train()
    embeds = torch.randn(1, 6, CONFIG.hidden_size, requires_grad=True)

    def gradient():
        output = model(inputs_embeds=embeds, use_cache=False, output_attentions=True)
        loss = sum((probabilities**2).sum() for probabilities in output.attentions)
        return output.attentions, torch.autograd.grad(loss, embeds)[0]

    expected, expected_gradient = gradient()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        output = model(inputs_embeds=embeds, use_cache=False, output_attentions=True)
        sum((probabilities**2).sum() for probabilities in output.attentions).backward()
        actual, actual_gradient = output.attentions, embeds.grad
    else:
        actual, actual_gradient = gradient()
    assert len(actual) == CONFIG.num_hidden_layers - 1
    assert_close(actual, expected)
    assert_close(actual_gradient, expected_gradient)


def test_routers_of_another_model_are_refused():
    model = counterpart(reference(CASES["llama"]))
    with pytest.raises(ValueError, match="output_router_logits=True: LlamaModel has no routers"):
        model(torch.arange(3)[None], output_router_logits=True)


def test_a_config_may_ask_for_routers_that_a_model_does_not_have():
    """Unknown fields of a config.json have no effect."""
    config = LlamaConfig(**SIZES, output_router_logits=True)
    output = LlamaModel(config)(torch.arange(3)[None])
    assert "router_logits" not in output
    with pytest.raises(ValueError, match="LlamaModel has no routers"):
        LlamaModel(config)(torch.arange(3)[None], output_router_logits=True)


def test_routers_of_a_model_without_experts():
    """A mixture all of whose layers are dense has no router to record, and no loss of balance."""
    config = Qwen2MoeConfig(**SIZES, **EXPERTS, mlp_only_layers=[0, 1, 2])
    output = Qwen2MoeForCausalLM(config)(torch.arange(3)[None], output_router_logits=True)
    assert output.router_logits == ()
    assert output.aux_loss is None


def test_checkpointed_layers_are_one_graph():
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).train()
    model.gradient_checkpointing_enable()
    ids = torch.arange(6)[None]

    def loss(ids):
        return model(ids, labels=ids, use_cache=False).loss

    expected = loss(ids)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert_close(compiled(ids), expected)


def test_steps_move_with_their_layers():
    moved = step(4, record=StepRecord(attentions=[])).to("meta")
    assert moved.rotations["default"].cos.is_meta
    assert moved.masks[None] == AttentionMask(None, causal=True)
    assert moved.record.attentions == []
    explicit = AttentionMask(torch.ones(1, 1, 4, 4, dtype=torch.bool), causal=False)
    assert Step({None: explicit}, ATTENTION_FUNCTIONS["eager"]).to("meta").masks[None].allowed.is_meta


def test_argument_order():
    class Caller:
        def forward(self, first=None, second=None, *, third=None, **rest):
            return first, second, third, rest

        ordered = in_order(forward, ("second", "fourth", "first"))

    assert Caller().ordered(1, 2, 3) == (3, 1, None, {"fourth": 2})
    assert Caller().ordered(1, third=2) == (None, 1, 2, {})
    with pytest.raises(TypeError, match="multiple values for argument 'second'"):
        Caller().ordered(1, second=2)
    with pytest.raises(TypeError, match="accepts 3 arguments by position, but got 4"):
        Caller().ordered(1, 2, 3, 4)


@torch.no_grad()
def test_compiled_for_texts_of_any_length():
    """The second length makes lengths symbols in the graph: nothing may be handed one in place of a bool."""
    model = counterpart(reference(CASES["llama"]))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for length in (5, 7, 9, 1):
        ids = torch.arange(length)[None]
        expected = model(ids, use_cache=False).logits
        assert_close(compiled(ids, use_cache=False).logits, expected, atol=1e-5, rtol=0)

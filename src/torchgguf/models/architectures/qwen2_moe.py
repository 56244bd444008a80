"""Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B): a Qwen2 with a mixture of experts in place of its MLPs.

Each token goes through a few experts that a router chooses, and through one that all tokens share.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.architectures.qwen2 import FULL, SLIDING, Qwen2Config
from torchgguf.models.blocks.decoder import MLP, DecoderForCausalLM, DecoderLayer, DecoderModel
from torchgguf.models.blocks.heads import (
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from torchgguf.models.blocks.outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from torchgguf.models.blocks.tables import DECODER_ROWS, DECODER_RULES
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Implied, Only, Unwritable, largest_dimension
from torchgguf.models.core.weight_map import Row, Stack, WeightMap
from torchgguf.nn.experts import Experts, Gate, load_balancing_loss


@config_dataclass
class Qwen2MoeConfig(Qwen2Config):
    """Fields beyond those of Qwen2, and other defaults.

    Layers in `mlp_only_layers`, and all but every `decoder_sparse_step`-th, have a plain MLP of
    `intermediate_size` instead of experts. With `use_sliding_window`, every other layer, from the first on,
    below `max_window_layers` looks back over `sliding_window` positions.
    """

    model_type = "qwen2_moe"

    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 16
    decoder_sparse_step: int = 1
    moe_intermediate_size: int = 1408
    shared_expert_intermediate_size: int = 5632
    num_experts_per_tok: int = 4
    num_experts: int = 60
    norm_topk_prob: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    mlp_only_layers: list[int] | None = None
    qkv_bias: bool = True

    def __post_init__(self, *legacy: Any) -> None:
        """Say of each layer whether it has a window."""
        self.mlp_only_layers = self.mlp_only_layers or []
        if self.layer_types is None and self.use_sliding_window:
            windowed = range(0, min(self.max_window_layers, self.num_hidden_layers), 2)
            self.layer_types = [SLIDING if i in windowed else FULL for i in range(self.num_hidden_layers)]
        super().__post_init__(*legacy)
        if not 0 < self.num_experts_per_tok <= self.num_experts:
            raise ValueError(f"{self.num_experts_per_tok} experts a token cannot be, of {self.num_experts}")

    def is_sparse(self, layer_idx: int) -> bool:
        """Tell whether a layer has experts."""
        assert self.mlp_only_layers is not None
        return layer_idx not in self.mlp_only_layers and (layer_idx + 1) % self.decoder_sparse_step == 0


QWEN2_MOE = Architecture(
    gguf="qwen2moe",
    config_class=Qwen2MoeConfig,
    rules=(
        *DECODER_RULES,
        Field("expert_count", "num_experts", limit=largest_dimension),
        Field("expert_used_count", "num_experts_per_tok", limit=largest_dimension),
        # The first files of this architecture state neither.
        Field("expert_feed_forward_length", "moe_intermediate_size", required=False, limit=largest_dimension),
        Field(
            "expert_shared_feed_forward_length",
            "shared_expert_intermediate_size",
            required=False,
            limit=largest_dimension,
        ),
        Implied("moe_intermediate_size", lambda tensors: tensors["blk.0.ffn_gate_exps.weight"].shape[1]),
        Implied(
            "shared_expert_intermediate_size", lambda tensors: tensors["blk.0.ffn_gate_shexp.weight"].shape[0]
        ),
        Implied("qkv_bias", lambda tensors: "blk.0.attn_q.bias" in tensors),
        # llama.cpp (src/models/qwen2moe.cpp) has experts in each layer, leaves their weights as they are, and
        # looks back without limit.
        Unwritable("norm_topk_prob", False),
        Unwritable("decoder_sparse_step", 1),
        Unwritable("mlp_only_layers", []),
        Unwritable("use_sliding_window", False),
        Only("attention.sliding_window", 0, "a Qwen2-MoE in a GGUF file looks back without limit"),
    ),
    weights=WeightMap(
        (
            *(row for row in DECODER_ROWS if ".mlp." not in row.hf),
            Row("blk.{}.attn_q", "layers.{}.self_attn.q_proj"),
            Row("blk.{}.attn_k", "layers.{}.self_attn.k_proj"),
            Row("blk.{}.ffn_gate_inp", "layers.{}.mlp.gate"),
            Row("blk.{}.ffn_gate_exps", "layers.{}.mlp.experts.gate_proj"),
            Row("blk.{}.ffn_up_exps", "layers.{}.mlp.experts.up_proj"),
            Row("blk.{}.ffn_down_exps", "layers.{}.mlp.experts.down_proj"),
            Row("blk.{}.ffn_gate_inp_shexp", "layers.{}.mlp.shared_expert_gate"),
            Row("blk.{}.ffn_gate_shexp", "layers.{}.mlp.shared_expert.gate_proj"),
            Row("blk.{}.ffn_up_shexp", "layers.{}.mlp.shared_expert.up_proj"),
            Row("blk.{}.ffn_down_shexp", "layers.{}.mlp.shared_expert.down_proj"),
        )
    ),
    stacks=(
        Stack(
            "layers.{}.mlp.experts.gate_up_proj",
            (
                "layers.{}.mlp.experts.{}.gate_proj.weight",
                "layers.{}.mlp.experts.{}.up_proj.weight",
            ),
        ),
        Stack("layers.{}.mlp.experts.down_proj", ("layers.{}.mlp.experts.{}.down_proj.weight",)),
    ),
    states_head=True,
)


class SparseMoeBlock(nn.Module):
    """A router, the experts it chooses among, and one that is always asked, with a gate of its own."""

    def __init__(self, config: Qwen2MoeConfig) -> None:
        super().__init__()
        self.choices = config.num_experts_per_tok
        self.normalised = config.norm_topk_prob
        shared = MLP(config, bias=False, intermediate_size=config.shared_expert_intermediate_size)
        self.gate = Gate(config.hidden_size, config.num_experts)
        self.experts: nn.Module = Experts(
            config.num_experts, config.hidden_size, config.moe_intermediate_size, shared.act_fn
        )
        self.shared_expert = shared
        self.shared_expert_gate = Gate(config.hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to itself."""
        tokens = x.flatten(0, 1)
        weights, chosen = F.softmax(self.gate(tokens), dim=-1, dtype=torch.float32).topk(self.choices)
        if self.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        routed = self.experts(tokens, chosen, weights.to(x.dtype)).view_as(x)
        share = torch.sigmoid(self.shared_expert_gate(x)).to(x.dtype)
        mixed: Tensor = routed + share * self.shared_expert(x)
        return mixed


@contextmanager
def _recorded_router_logits(model: nn.Module, wanted: bool) -> Iterator[list[Tensor]]:
    """Collect what the routers say while the model runs, layer by layer, `(B * T, num_experts)` each."""
    said: list[Tensor] = []
    if not wanted:  # a step of decoding, which may be compiled: threads and hooks have no place in a graph
        yield said
        return
    thread = get_ident()

    def record(gate: nn.Module, inputs: Any, logits: Tensor) -> None:
        if get_ident() == thread:  # others may run the same model
            said.append(logits)

    blocks = [module for module in model.modules() if isinstance(module, SparseMoeBlock)]
    hooks = [block.gate.register_forward_hook(record) for block in blocks]
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()


class Qwen2MoeModel(DecoderModel, architecture=QWEN2_MOE):
    """Qwen2-MoE without a head."""

    def init_weights(self, module: nn.Module) -> None:
        """Give a layer of a new model its first values."""
        super().init_weights(module)
        if isinstance(module, Experts):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=self.config.initializer_range)

    def make_layers(self, config: Qwen2MoeConfig) -> Iterable[DecoderLayer]:
        """Make layers with or without experts."""
        for i, window in enumerate(config.windows):
            mlp = SparseMoeBlock(config) if config.is_sparse(i) else None
            yield DecoderLayer(config, i, window=window, qkv_bias=config.qkv_bias, mlp=mlp)

    def forward(  # type: ignore[override]  # other arguments by name only
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        output_router_logits: bool | None = None,
        return_dict: bool = True,
        **inputs: Any,
    ) -> MoeModelOutputWithPast | tuple[Any, ...]:
        """Run the decoder: a `MoeModelOutputWithPast`.

        Arguments and errors are those of `DecoderModel.forward`, and `output_router_logits`: whether to
        return what the routers say; by default the config says.
        """
        wanted = self.config.output_router_logits if output_router_logits is None else output_router_logits
        with _recorded_router_logits(self, wanted) as said:
            decoded = super().forward(input_ids, attention_mask, **inputs)
        output = MoeModelOutputWithPast(**vars(decoded), router_logits=tuple(said) if wanted else None)
        return output if return_dict else output.to_tuple()


class Qwen2MoeForCausalLM(DecoderForCausalLM, base=Qwen2MoeModel):
    def forward(  # type: ignore[override]  # other arguments by name only
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        output_router_logits: bool | None = None,
        return_dict: bool = True,
        **inputs: Any,
    ) -> MoeCausalLMOutputWithPast | tuple[Any, ...]:
        """Score the next token at every position: a `MoeCausalLMOutputWithPast`.

        Arguments and errors are those of `DecoderForCausalLM.forward`, and `output_router_logits`: whether to
        return what the routers say and `aux_loss`, how unevenly they spread the tokens, of which
        `router_aux_loss_coef` is added to the loss. By default the config says.
        """
        wanted = self.config.output_router_logits if output_router_logits is None else output_router_logits
        with _recorded_router_logits(self, wanted) as said:
            scored = super().forward(input_ids, attention_mask, labels=labels, **inputs)
        output = MoeCausalLMOutputWithPast(**vars(scored), router_logits=tuple(said) if wanted else None)
        if wanted:
            output.aux_loss = load_balancing_loss(said, self.config.num_experts_per_tok, attention_mask)
            if output.loss is not None:
                output.loss = output.loss + self.config.router_aux_loss_coef * output.aux_loss
        return output if return_dict else output.to_tuple()


class Qwen2MoeForSequenceClassification(ForSequenceClassification, base=Qwen2MoeModel): ...


class Qwen2MoeForTokenClassification(ForTokenClassification, base=Qwen2MoeModel): ...


class Qwen2MoeForQuestionAnswering(ForQuestionAnswering, base=Qwen2MoeModel): ...

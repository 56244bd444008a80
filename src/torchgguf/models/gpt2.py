"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Shape letters: B batch, C choices of a question, T new positions, S positions seen including the new ones,
H heads, D head size.
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.architecture import Architecture
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.config import PreTrainedConfig, config_dataclass
from torchgguf.models.config_map import (
    Field,
    Header,
    Implied,
    Only,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.decoder import DecoderForCausalLM
from torchgguf.models.outputs import BaseModelOutputWithPast
from torchgguf.models.stack import LayerStack
from torchgguf.models.weight_map import Row, WeightMap
from torchgguf.nn import (
    AttentionFunction,
    AttentionMask,
    Cache,
    Conv1D,
    Embedding,
    LayerNorm,
    attention_masks,
    find_activation,
    next_positions,
)


@config_dataclass
class GPT2Config(PreTrainedConfig):
    """Sizes and choices; `n_inner` is the width of the MLP, by default four times `n_embd`.

    Scores of attention are divided by the root of the head size (`scale_attn_weights`) and by the number of
    the layer, from 1 on (`scale_attn_by_inverse_layer_idx`); `reorder_and_upcast_attn` makes them in float32
    whatever the model's dtype. The `summary_` fields belong to `GPT2DoubleHeadsModel`.
    """

    model_type = "gpt2"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    summary_type: str = "cls_index"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    scale_attn_weights: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, *labels: Any) -> None:
        """Refuse sizes that do not fit, and what there is no code for."""
        super().__post_init__(*labels)
        if self.n_head < 1 or self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} cannot be shared evenly by n_head={self.n_head}")
        if self.add_cross_attention:
            raise ValueError("add_cross_attention=True: attention to an encoder is not supported")

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of config.json, with the older name for which llama.cpp's converter asks."""
        return {**super().to_dict(), "n_ctx": self.n_positions}

    @property
    def inner_size(self) -> int:
        """Width of the MLP."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner


class InnerSize(Rule):
    """The width of the MLP, which a config leaves open where it is the usual one."""

    keys = ("feed_forward_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the width."""
        size, usual = header.positive(self.keys[0], int), 4 * header.positive("embedding_length", int)
        if size > (limit := largest_dimension(header)):
            raise GGUFError(f"{self.keys[0]} = {size} cannot be: the largest dimension is {limit}")
        return {"n_inner": None if size == usual else size}

    def write(self, config: GPT2Config) -> dict[str, Any]:
        """Write the width."""
        return {self.keys[0]: config.inner_size}


GPT2 = Architecture(
    gguf="gpt2",
    config_class=GPT2Config,
    hf_prefix="transformer.",
    rules=(
        Field("block_count", "n_layer", limit=tensor_count),
        Field("context_length", "n_positions", limit=largest_dimension),
        Field("embedding_length", "n_embd", limit=largest_dimension),
        InnerSize(),
        Field("attention.head_count", "n_head", limit=largest_dimension),
        Field("attention.head_count_kv", "n_head", required=False, limit=largest_dimension),
        Field("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        Field("vocab_size", "vocab_size", required=False, limit=largest_dimension),
        Implied("vocab_size", lambda tensors: tensors["token_embd.weight"].shape[0]),
        Implied("tie_word_embeddings", lambda tensors: "output.weight" not in tensors),
        Only("attention.causal", True, "attention in both directions is not supported"),
        Unwritable("activation_function", "gelu_new"),
        Unwritable("scale_attn_weights", True),
        Unwritable("scale_attn_by_inverse_layer_idx", False),
    ),
    weights=WeightMap(
        (
            Row("token_embd", "transformer.wte"),
            Row("position_embd", "transformer.wpe"),
            Row("output_norm", "transformer.ln_f"),
            Row("output", "lm_head"),
            Row("blk.{}.attn_norm", "transformer.h.{}.ln_1"),
            Row("blk.{}.attn_qkv", "transformer.h.{}.attn.c_attn"),
            Row("blk.{}.attn_output", "transformer.h.{}.attn.c_proj"),
            Row("blk.{}.ffn_norm", "transformer.h.{}.ln_2"),
            Row("blk.{}.ffn_up", "transformer.h.{}.mlp.c_fc"),
            Row("blk.{}.ffn_down", "transformer.h.{}.mlp.c_proj"),
        )
    ),
)


class GPT2Attention(nn.Module):
    """Self-attention, queries, keys and values by one projection."""

    def __init__(self, config: GPT2Config, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.heads = config.n_head
        self.scaling = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scaling /= layer_idx + 1
        self.upcast = config.reorder_and_upcast_attn
        self.dropout = config.attn_pdrop
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(
        self, x: Tensor, mask: AttentionMask, cache: Cache | None, attend: AttentionFunction
    ) -> tuple[Tensor, Tensor | None]:
        """Map `(B, T, n_embd)` to itself; also the probabilities, if `attend` makes them."""
        batch, new, _ = x.shape
        heads = self.c_attn(x).view(batch, new, 3, self.heads, -1)
        query, key, value = (part.transpose(1, 2) for part in heads.unbind(2))
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        if self.upcast:
            query, key = query.float(), key.float()
        # Autocast would make what is wide narrow again.
        with torch.autocast(x.device.type, enabled=False) if self.upcast else nullcontext():
            dropout = self.dropout if self.training else 0.0
            output, probabilities = attend(query, key, value, mask, self.scaling, dropout)
        output = self.c_proj(output.transpose(1, 2).reshape(batch, new, -1))
        return self.resid_dropout(output), probabilities


class GPT2MLP(nn.Module):
    """`c_proj(act(c_fc(x)))`."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Conv1D(config.inner_size, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.inner_size)
        self.act = find_activation("activation_function", config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., n_embd)` to itself."""
        projected: Tensor = self.dropout(self.c_proj(self.act(self.c_fc(x))))
        return projected


class GPT2Block(nn.Module):
    """Attention and MLP, each on the normalised stream and added back to it."""

    def __init__(self, config: GPT2Config, layer_idx: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = GPT2Attention(config, layer_idx)
        self.ln_2 = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = GPT2MLP(config)

    def forward(
        self, x: Tensor, mask: AttentionMask, cache: Cache | None, attend: AttentionFunction
    ) -> tuple[Tensor, Tensor | None]:
        """Map the stream `(B, T, n_embd)` to the next layer's; also the attention probabilities."""
        attended, probabilities = self.attn(self.ln_1(x), mask, cache, attend)
        x = x + attended
        return x + self.mlp(self.ln_2(x)), probabilities


class GPT2PreTrainedModel(PreTrainedModel):
    """Base of the GPT-2 models."""

    architecture = GPT2
    base_model_prefix = "transformer"

    def init_weights(self, module: nn.Module) -> None:
        """Give a layer its first values; what is added to the stream is kept small, as it is added often."""
        super().init_weights(module)
        std: float = self.config.initializer_range
        if isinstance(module, Conv1D) and not module.weight.is_meta:
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, GPT2Attention | GPT2MLP) and not module.c_proj.weight.is_meta:
            nn.init.normal_(module.c_proj.weight, std=std / math.sqrt(2 * self.config.n_layer))


class GPT2Model(GPT2PreTrainedModel, LayerStack):
    """GPT-2 without a head."""

    layers_name = "h"
    norm_name = "ln_f"

    def __init__(self, config: GPT2Config, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.wte: nn.Module = Embedding(config.vocab_size, config.n_embd)
        self.wpe: nn.Module = Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(GPT2Block(config, i) for i in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.wte

    def prepare(
        self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Iterable[tuple[Any, ...]]]:
        """Add what stands for the positions, and give every layer the one mask."""
        new, known = x.shape[1], self.config.n_positions
        if position_ids is None:
            position_ids = next_positions(cache, new, x.device)
        # A GPU is not asked: to wait for its answer would take longer than the lookup.
        asked = position_ids.device.type == "cpu" and not torch.compiler.is_compiling()
        if asked and (last := int(position_ids.max())) >= known:
            raise ValueError(f"there is no position {last}: the model has n_positions={known}, from 0 on")
        positions: Tensor = self.wpe(position_ids.reshape(-1, new))
        mask = attention_masks([None], attention_mask, x, cache)[None]
        return self.drop(x + positions.to(x.dtype)), [(mask,)] * len(self.h)

    def forward(  # type: ignore[override]  # the order is that of transformers
        self,
        input_ids: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        use_cache: bool | None = None,
        return_dict: bool = True,
        **options: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Run the model.

        Arguments and errors are those of `LayerStack.forward`, and one more: `token_type_ids` say of what
        kind each input is, by tokens whose embeddings are added. Instead of `(B, T)` inputs may be
        `(B, C, T)`: all C are rows of the batch. Positions end at `n_positions`; with padding on the left,
        the texts' own are `(attention_mask.cumsum(-1) - 1).clamp(min=0)`.
        """
        if token_type_ids is not None and (input_ids is None) != (inputs_embeds is None):
            embeds = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
            input_ids, inputs_embeds = None, embeds + self.wte(token_type_ids)
        output = super().forward(
            _as_rows(input_ids, 1),
            attention_mask=_as_rows(attention_mask, 1),
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=_as_rows(inputs_embeds, 2),
            use_cache=use_cache,
            **options,
        )
        places = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
        assert isinstance(output, BaseModelOutputWithPast) and places is not None
        output.last_hidden_state = last = output.last_hidden_state.view(*places.shape, -1)
        if output.hidden_states is not None:
            output.hidden_states = (*output.hidden_states[:-1], last)
        if not (self.config.use_cache if use_cache is None else use_cache):
            output.cache = None  # though it was used, and grew
        return output if return_dict else output.to_tuple()


def _as_rows(tensor: Tensor | None, dims: int) -> Tensor | None:
    """Flatten all dimensions but the last `dims` to one of rows."""
    return None if tensor is None else tensor.reshape(-1, *tensor.shape[-dims:])


class GPT2WithHead(GPT2PreTrainedModel):
    """GPT-2 with a head that scores tokens or texts: it takes its inputs in the order of transformers."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run the model and its head, and return what the head's class says.

        Arguments and errors are those of `GPT2Model.forward` and of `DecoderForCausalLM`,
        `ForSequenceClassification` or `ForTokenClassification`; `labels` ask for the loss.
        """
        return super().forward(
            input_ids,
            cache=cache,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            **options,
        )


class GPT2LMHeadModel(GPT2WithHead, DecoderForCausalLM):  # type: ignore[misc]  # by the order of inputs
    """GPT-2 that predicts the next token."""

    base_class = GPT2Model

"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Shape letters: B batch, C choices of a question, T new positions, S positions seen including the new ones,
H heads, D head size.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.outputs import BaseModelOutputWithPast
from torchgguf.models.blocks.stack import LayerStack, check_positions
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Field,
    Header,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import HEAD, Row
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.nn import Cache, Conv1D, Embedding, LayerNorm, find_activation


@config_dataclass
class GPT2Config(PreTrainedConfig):
    """Sizes and choices; `n_inner` is the width of the MLP, by default four times `n_embd`.

    Attention divides scores by the root of the head size (`scale_attn_weights`) and by the number of the
    layer, from 1 on (`scale_attn_by_inverse_layer_idx`); `reorder_and_upcast_attn` computes them in float32
    for every dtype of the model. The `summary_` fields are those of `GPT2DoubleHeadsModel`.
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
        """Check the sizes, and refuse unsupported fields."""
        super().__post_init__(*labels)
        if self.n_head < 1 or self.n_embd % self.n_head:
            raise ValueError(
                f"n_head must be a positive divisor of n_embd={self.n_embd}, got n_head={self.n_head}"
            )
        if self.add_cross_attention:
            raise ValueError("add_cross_attention=True is unsupported: there is no encoder to attend to")

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of config.json, with an older name that llama.cpp's converter reads."""
        return {**super().to_dict(), "n_ctx": self.n_positions}

    @property
    def inner_size(self) -> int:
        """Width of the MLP."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner


class InnerSize(Rule):
    """The width of the MLP; if it is four times the model's, a config has None."""

    keys = ("feed_forward_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the width."""
        size, usual = header.positive(self.keys[0], int), 4 * header.positive("embedding_length", int)
        if size > (limit := largest_dimension(header)):
            raise GGUFError(f"{self.keys[0]} = {size} is invalid: the largest dimension is {limit}")
        return {"n_inner": None if size == usual else size}

    def write(self, config: GPT2Config) -> dict[str, Any]:
        """Write the width."""
        return {self.keys[0]: config.inner_size}


GPT2 = Architecture(
    gguf="gpt2",
    config_class=GPT2Config,
    rules=(
        Field("block_count", "n_layer", limit=tensor_count),
        Field("context_length", "n_positions", limit=largest_dimension),
        Field("embedding_length", "n_embd", limit=largest_dimension),
        InnerSize(),
        Field("attention.head_count", "n_head", limit=largest_dimension),
        Field("attention.head_count_kv", "n_head", required=False, limit=largest_dimension),
        Field("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        *tables.IMPLIED_RULES,
        Unwritable("activation_function", "gelu_new"),
        Unwritable("scale_attn_weights", True),
        Unwritable("scale_attn_by_inverse_layer_idx", False),
    ),
    rows=(
        Row("token_embd", "wte"),
        Row("position_embd", "wpe"),
        Row("output_norm", "ln_f"),
        Row("output", HEAD),
        Row("blk.{}.attn_norm", "h.{}.ln_1"),
        Row("blk.{}.attn_qkv", "h.{}.attn.c_attn"),
        Row("blk.{}.attn_output", "h.{}.attn.c_proj"),
        Row("blk.{}.ffn_norm", "h.{}.ln_2"),
        Row("blk.{}.ffn_up", "h.{}.mlp.c_fc"),
        Row("blk.{}.ffn_down", "h.{}.mlp.c_proj"),
    ),
    unread=tables.PLAIN_MLP_FACTORS,
)


class GPT2Attention(SelfAttention):
    """Self-attention; one projection computes queries, keys and values."""

    def __init__(self, config: GPT2Config, layer_idx: int) -> None:
        scaling = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scaling /= layer_idx + 1
        super().__init__(layer_idx, scaling, config.attn_pdrop)
        self.heads = config.n_head
        self.upcast = config.reorder_and_upcast_attn
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, n_embd)` to itself."""
        query, key, value = self.c_attn(x).unflatten(2, (3, self.heads, -1)).unbind(2)
        output: Tensor = self.resid_dropout(self.c_proj(self.attend(query, key, value, step)))
        return output

    def compare(self, query: Tensor, key: Tensor, value: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Compare as `SelfAttention` does, but in float32 with `reorder_and_upcast_attn`."""
        if not self.upcast:
            return super().compare(query, key, value, step)
        # Autocast would convert the operands to a narrow dtype again.
        with torch.autocast(query.device.type, enabled=False):
            return super().compare(query.float(), key.float(), value, step)


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
    """Attention and MLP: each reads the normalised stream and adds its output to the stream.

    Attributes:
        attention_class: of the attention, made from the config and the number of the layer.
        mlp_class: of the MLP, made from the config.
    """

    attention_class: ClassVar[type[nn.Module]] = GPT2Attention
    mlp_class: ClassVar[type[nn.Module]] = GPT2MLP

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = self.attention_class(config, layer_idx)
        self.ln_2 = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = self.mlp_class(config)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, n_embd)` to the next layer's."""
        x = x + self.attn(self.ln_1(x), step)
        output: Tensor = x + self.mlp(self.ln_2(x))
        return output


class GPT2PreTrainedModel(PreTrainedModel, architecture=GPT2):
    """Base of the GPT-2 models."""

    base_model_prefix = "transformer"

    def init_weights(self, module: nn.Module) -> None:
        """Initialise a layer; outputs that are added to the stream start smaller in deeper models."""
        super().init_weights(module)
        std: float = self.config.initializer_range
        if isinstance(module, Conv1D):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, GPT2Attention | GPT2MLP):
            nn.init.normal_(module.c_proj.weight, std=std / math.sqrt(2 * self.config.n_layer))


class GPT2Model(GPT2PreTrainedModel, LayerStack):
    """GPT-2 without a head."""

    block_class: ClassVar[type[nn.Module]] = GPT2Block
    layers_name = "h"
    norm_name = "ln_f"
    ends_with_context = True
    argument_order = (
        "input_ids",
        "cache",
        "attention_mask",
        "token_type_ids",
        "position_ids",
        "inputs_embeds",
    )

    def __init__(self, config: GPT2Config, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.wte: nn.Module = Embedding(config.vocab_size, config.n_embd)
        self.wpe: nn.Module = Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(self.block_class(config, i) for i in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.wte

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Add the embeddings of the positions."""
        check_positions(position_ids, self.config.n_positions, "n_positions")
        positions: Tensor = self.wpe(position_ids.reshape(-1, x.shape[1]))
        embedded: Tensor = self.drop(x + positions.to(x.dtype))
        return embedded

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        token_type_ids: Tensor | None = None,
        return_dict: bool | None = True,
        **options: Any,
    ) -> Any:
        """Run the model.

        `LayerStack.forward` describes arguments and errors. In addition, `token_type_ids` are tokens that
        mark the kind of each input; their embeddings are added. Inputs may also be `(B, C, T)`: all C are
        rows of the batch. Positions must be below `n_positions`; with padding on the left, those of a text
        are `(attention_mask.cumsum(-1) - 1).clamp(min=0)`.
        """
        if token_type_ids is not None and (input_ids is None) != (inputs_embeds is None):
            embeds = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
            input_ids, inputs_embeds = None, embeds + self.wte(token_type_ids)
        output = super().forward(
            input_ids=_as_rows(input_ids, 1),
            attention_mask=_mask_as_rows(attention_mask),
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
            output.cache = None  # the cache of the caller was updated all the same
        return output.to_tuple() if return_dict is False else output


def _as_rows(tensor: Tensor | None, dims: int) -> Tensor | None:
    """Flatten all dimensions except the last `dims` into one of rows."""
    return None if tensor is None else tensor.reshape(-1, *tensor.shape[-dims:])


def _mask_as_rows(mask: Tensor | None) -> Tensor | None:
    """Flatten the dimensions of rows of a mask, unless it has a row for each query already."""
    return mask if mask is not None and mask.dtype is torch.bool and mask.dim() == 4 else _as_rows(mask, 1)


class GPT2LMHeadModel(GPT2PreTrainedModel, heads.ForCausalLM, base=GPT2Model): ...


class GPT2ForSequenceClassification(GPT2PreTrainedModel, heads.ForSequenceClassification, base=GPT2Model): ...


class GPT2ForTokenClassification(GPT2PreTrainedModel, heads.ForTokenClassification, base=GPT2Model):
    head_name = "classifier"


class GPT2ForQuestionAnswering(GPT2PreTrainedModel, heads.ForQuestionAnswering, base=GPT2Model):
    argument_order = ()

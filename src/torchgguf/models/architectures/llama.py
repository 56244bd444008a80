"""Llama (Touvron et al. 2023, arXiv 2302.13971) and its like: Llama 2 and 3, SmolLM, TinyLlama, …"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Implied, Only


@config_dataclass
class LlamaConfig(DecoderConfig):
    """Fields beyond those of all decoders."""

    model_type = "llama"

    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    attention_bias: bool = False
    mlp_bias: bool = False


LLAMA_RULES = (
    *tables.DECODER_RULES,
    Harmless(("tensor_data_layout",)),  # layout of Meta's original files; that of the tensors is the same
)

NO_EXPERTS = tuple(
    Only(key, 0, "the files of dense models do not state experts")
    for key in ("expert_count", "expert_used_count")
)

LLAMA_ROWS = (*tables.STREAM, *tables.PRE_NORMS, *tables.INTERLEAVED_ATTENTION, *tables.GATED_MLP)

LLAMA = Architecture(
    gguf="llama",
    config_class=LlamaConfig,
    rules=(
        *LLAMA_RULES,
        *NO_EXPERTS,
        Implied("attention_bias", tables.in_first_layer("attn_output.bias")),
        Implied("mlp_bias", lambda tensors: "blk.0.ffn_gate.bias" in tensors),
        NO_WINDOW,
    ),
    rows=LLAMA_ROWS,
    matches=lambda metadata: not metadata.get("llama.attention.sliding_window"),
    scales_biases=True,
)


class LlamaModel(DecoderModel, architecture=LLAMA):
    """Llama without a head."""

    def make_layer(self, config: LlamaConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer; the config states whether attention and MLP use biases."""
        attention = Attention(config, layer_idx, bias=config.attention_bias)
        return DecoderLayer(config, attention, MLP(config, bias=config.mlp_bias))


class LlamaForCausalLM(heads.ForCausalLM, base=LlamaModel): ...


class LlamaForSequenceClassification(heads.ForSequenceClassification, base=LlamaModel): ...


class LlamaForTokenClassification(heads.ForTokenClassification, base=LlamaModel): ...


class LlamaForQuestionAnswering(heads.ForQuestionAnswering, base=LlamaModel):
    base_model_prefix = "transformer"  # the name in released checkpoints

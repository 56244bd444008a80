"""Llama (Touvron et al. 2023, arXiv 2302.13971) and all in its form: Llama 2 and 3, SmolLM, TinyLlama, …"""

from collections.abc import Iterable

from torchgguf.models.blocks.decoder import DecoderConfig, DecoderForCausalLM, DecoderLayer, DecoderModel
from torchgguf.models.blocks.heads import (
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from torchgguf.models.blocks.tables import DECODER_ROWS, DECODER_RULES
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Implied, Only
from torchgguf.models.core.weight_map import Row, WeightMap, interleaved_rotary_rows


@config_dataclass
class LlamaConfig(DecoderConfig):
    """Fields beyond those of all decoders."""

    model_type = "llama"

    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    attention_bias: bool = False
    mlp_bias: bool = False


LLAMA_RULES = (
    *DECODER_RULES,
    Only("expert_count", 0, "mixture-of-experts models such as Mixtral are not supported"),
    Only("expert_used_count", 0, "mixture-of-experts models such as Mixtral are not supported"),
    Harmless(("tensor_data_layout",)),  # how Meta's own files lay; the tensors' layout is the same
)

LLAMA_WEIGHTS = WeightMap(
    (
        *DECODER_ROWS,
        Row(
            "blk.{}.attn_q",
            "layers.{}.self_attn.q_proj",
            interleaved_rotary_rows("num_attention_heads"),
        ),
        Row(
            "blk.{}.attn_k",
            "layers.{}.self_attn.k_proj",
            interleaved_rotary_rows("num_key_value_heads"),
        ),
    )
)

LLAMA = Architecture(
    gguf="llama",
    config_class=LlamaConfig,
    rules=(
        *LLAMA_RULES,
        Implied("attention_bias", lambda tensors: "blk.0.attn_q.bias" in tensors),
        Implied("mlp_bias", lambda tensors: "blk.0.ffn_gate.bias" in tensors),
        Only("attention.sliding_window", 0, "a Llama looks back without limit"),
    ),
    weights=LLAMA_WEIGHTS,
    matches=lambda metadata: not metadata.get("llama.attention.sliding_window"),
)


class LlamaModel(DecoderModel, architecture=LLAMA):
    """Llama without a head."""

    def make_layers(self, config: LlamaConfig) -> Iterable[DecoderLayer]:
        """Make layers whose biases are in all projections of a kind, or in none."""
        return (
            DecoderLayer(
                config,
                i,
                qkv_bias=config.attention_bias,
                output_bias=config.attention_bias,
                mlp_bias=config.mlp_bias,
            )
            for i in range(config.num_hidden_layers)
        )


class LlamaForCausalLM(DecoderForCausalLM, base=LlamaModel): ...


class LlamaForSequenceClassification(ForSequenceClassification, base=LlamaModel): ...


class LlamaForTokenClassification(ForTokenClassification, base=LlamaModel): ...


class LlamaForQuestionAnswering(ForQuestionAnswering, base=LlamaModel):
    base_model_prefix = "transformer"  # what released checkpoints call it

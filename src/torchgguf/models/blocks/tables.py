"""What the weight maps and config maps of llama-like decoders have in common."""

from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.core.config_map import Field, Implied, Only, Unwritable, largest_dimension, tensor_count
from torchgguf.models.core.weight_map import Row

# What is left when projections are fused, or the MLP is another.
COMMON_ROWS = (
    Row("token_embd", "embed_tokens"),
    Row("output_norm", "norm"),
    Row("output", "lm_head"),
    Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
    Row("blk.{}.attn_output", "layers.{}.self_attn.o_proj"),
    Row("blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"),
    Row("blk.{}.ffn_down", "layers.{}.mlp.down_proj"),
)

# Queries and keys are left to each architecture: some lay their rows out for another rotary embedding.
DECODER_ROWS = (
    *COMMON_ROWS,
    Row("blk.{}.attn_v", "layers.{}.self_attn.v_proj"),
    Row("blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"),
    Row("blk.{}.ffn_up", "layers.{}.mlp.up_proj"),
)

# What is left when not all of a head is rotated.
COMMON_RULES = (
    Field("block_count", "num_hidden_layers", limit=tensor_count),
    Field("context_length", "max_position_embeddings"),
    Field("embedding_length", "hidden_size", limit=largest_dimension),
    Field("feed_forward_length", "intermediate_size", limit=largest_dimension),
    Field("attention.head_count", "num_attention_heads", limit=largest_dimension),
    Field("attention.head_count_kv", "num_key_value_heads", required=False, limit=largest_dimension),
    Field("attention.key_length", "head_dim", required=False, limit=largest_dimension),
    Field("attention.value_length", "head_dim", required=False, limit=largest_dimension),
    Field("attention.layer_norm_rms_epsilon", "rms_norm_eps", float),
    Field("vocab_size", "vocab_size", required=False, limit=largest_dimension),
    Implied("vocab_size", lambda tensors: tensors["token_embd.weight"].shape[0]),
    Implied("tie_word_embeddings", lambda tensors: "output.weight" not in tensors),
    Only("attention.causal", True, "attention in both directions is not supported"),
    Unwritable("hidden_act", "silu"),
)

DECODER_RULES = (
    *COMMON_RULES,
    Field("rope.dimension_count", "head_dim", required=False, limit=largest_dimension),
    Rope(),
)

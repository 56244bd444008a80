"""Rows and rules that weight maps and config maps of llama-like decoders share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torchgguf.container import TensorInfo
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.core.config_map import (
    Constant,
    Field,
    Harmless,
    Implied,
    Only,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import HEAD, INTERLEAVED_HEADS, Joined, Row, Stack

# Weights of all decoders outside the layers.
STREAM = (Row("token_embd", "embed_tokens"), Row("output_norm", "norm"), Row("output", HEAD))

# Of models whose head always shares the weights of the embedding.
TIED_STREAM = STREAM[:2]

PRE_NORMS = (
    Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
    Row("blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"),
)

# Norms of `SandwichLayer` and `PostNormLayer`.
POST_NORMS = (
    Row("blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),
    Row("blk.{}.post_ffw_norm", "layers.{}.post_feedforward_layernorm"),
)
SANDWICH_NORMS = (
    Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
    Row("blk.{}.ffn_norm", "layers.{}.pre_feedforward_layernorm"),
    *POST_NORMS,
)

ATTENTION_OUTPUT = (Row("blk.{}.attn_output", "layers.{}.self_attn.o_proj"),)
_VALUE = Row("blk.{}.attn_v", "layers.{}.self_attn.v_proj")

QKV = (
    Row("blk.{}.attn_q", "layers.{}.self_attn.q_proj"),
    Row("blk.{}.attn_k", "layers.{}.self_attn.k_proj"),
    _VALUE,
)

ATTENTION = (*QKV, *ATTENTION_OUTPUT)

# The rows of `FusedAttention`.
FUSED_ATTENTION = (Row("blk.{}.attn_qkv", "layers.{}.self_attn.qkv_proj"), *ATTENTION_OUTPUT)

# For files that store rows of queries and keys in the order of interleaved rotary embedding.
INTERLEAVED_ATTENTION = (
    Row("blk.{}.attn_q", "layers.{}.self_attn.q_proj", INTERLEAVED_HEADS),
    Row("blk.{}.attn_k", "layers.{}.self_attn.k_proj", INTERLEAVED_HEADS),
    _VALUE,
    *ATTENTION_OUTPUT,
)

QK_NORMS = (
    Row("blk.{}.attn_q_norm", "layers.{}.self_attn.q_norm"),
    Row("blk.{}.attn_k_norm", "layers.{}.self_attn.k_norm"),
)
# For norms that follow an interleaved rotation.
INTERLEAVED_QK_NORMS = tuple(replace(row, transform=INTERLEAVED_HEADS) for row in QK_NORMS)

MLP_OUTPUT = (Row("blk.{}.ffn_down", "layers.{}.mlp.down_proj"),)

# The MLP of two layers, by the names of `PlainMLP`.
PLAIN_MLP = (Row("blk.{}.ffn_up", "layers.{}.mlp.up_proj"), *MLP_OUTPUT)

# Factors on the products of a plain MLP, which llama.cpp does not use in some architectures.
PLAIN_MLP_FACTORS = tuple(f"blk.{{}}.ffn_{part}.scale" for part in ("up", "down"))
GATED_MLP_FACTORS = ("blk.{}.ffn_gate.scale", *PLAIN_MLP_FACTORS)

GATED_MLP = (
    Row("blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"),
    Row("blk.{}.ffn_up", "layers.{}.mlp.up_proj"),
    *MLP_OUTPUT,
)


def expert_rows(block: str = "mlp", gate: str = "gate") -> tuple[Row, ...]:
    """Return the rows of experts, given the names of the module that contains them and of its gate."""
    return (
        Row("blk.{}.ffn_gate_inp", f"layers.{{}}.{block}.{gate}"),
        *(
            Row(f"blk.{{}}.ffn_{part}_exps", f"layers.{{}}.{block}.experts.{part}_proj")
            for part in ("gate", "up", "down")
        ),
    )


EXPERTS = expert_rows()

# Queries, keys and values that files store as one tensor.
FUSED_QKV = Joined("blk.{}.attn_qkv", ("blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v"))

SHARED_EXPERT = (
    Row("blk.{}.ffn_gate_inp_shexp", "layers.{}.mlp.shared_expert_gate"),
    Row("blk.{}.ffn_gate_shexp", "layers.{}.mlp.shared_expert.gate_proj"),
    Row("blk.{}.ffn_up_shexp", "layers.{}.mlp.shared_expert.up_proj"),
    Row("blk.{}.ffn_down_shexp", "layers.{}.mlp.shared_expert.down_proj"),
)

# Experts that all tokens share, without a gate.
SHARED_EXPERTS = tuple(
    Row(f"blk.{{}}.ffn_{part}_shexp", f"layers.{{}}.mlp.shared_experts.{part}_proj")
    for part in ("gate", "up", "down")
)

# The bias by which experts are chosen, as `CorrectionBias` names it.
CORRECTION = Row("blk.{}.exp_probs_b", "layers.{}.mlp.gate.e_score_correction_bias")

# Checkpoints store the matrices of each expert separately.
EXPERT_STACKS = (
    Stack(
        "layers.{}.mlp.experts.gate_up_proj",
        ("layers.{}.mlp.experts.{}.gate_proj.weight", "layers.{}.mlp.experts.{}.up_proj.weight"),
    ),
    Stack("layers.{}.mlp.experts.down_proj", ("layers.{}.mlp.experts.{}.down_proj.weight",)),
)


def expert_rules(
    count: str = "num_experts", used: str = "num_experts_per_tok", size: str | None = "moe_intermediate_size"
) -> tuple[Rule, ...]:
    """Return the rules for numbers and size of experts, given the names of their fields.

    Without a key, the size follows from the tensors; None: it is `intermediate_size`, and the tensors are
    checked against that, whatever the key states.
    """
    rules: tuple[Rule, ...] = (
        Field("expert_count", count, limit=largest_dimension),
        Field("expert_used_count", used, limit=largest_dimension),
    )
    if size is None:
        return (*rules, Harmless(("expert_feed_forward_length",)))
    return (
        *rules,
        Field("expert_feed_forward_length", size, required=False, limit=largest_dimension),
        Implied(size, _expert_size),
    )


def _expert_size(tensors: Mapping[str, TensorInfo]) -> int:
    names = (name for name in tensors if name.endswith(".ffn_down_exps.weight"))
    return tensors[next(names, "blk.0.ffn_down_exps.weight")].shape[-1]


VOCABULARY_RULES = (
    Field("vocab_size", "vocab_size", required=False, limit=largest_dimension),
    Implied("vocab_size", lambda tensors: tensors["token_embd.weight"].shape[0]),
)


def _kinds(tensors: Mapping[str, TensorInfo]) -> int:
    """Return the number of kinds of tokens: there may be none."""
    table = tensors.get("token_types.weight")
    return 0 if table is None else table.shape[0]


HEAD_SIZES = (
    Field("attention.key_length", "head_dim", required=False, limit=largest_dimension),
    Field("attention.value_length", "head_dim", required=False, limit=largest_dimension),
)

# Rules of all encoders, and rows of those with kinds of tokens.
NOT_CAUSAL = Constant("attention.causal", False, "an encoder requires false")
ENCODER_RULES = (
    Field("block_count", "num_hidden_layers", limit=tensor_count),
    Field("embedding_length", "hidden_size", limit=largest_dimension),
    Field("feed_forward_length", "intermediate_size", limit=largest_dimension),
    Field("attention.head_count", "num_attention_heads", limit=largest_dimension),
    Field("attention.head_count_kv", "num_attention_heads", required=False, limit=largest_dimension),
    *VOCABULARY_RULES,
    NOT_CAUSAL,
)
KINDS_RULES = (
    Field("attention.layer_norm_epsilon", "layer_norm_eps", float),
    Implied("type_vocab_size", _kinds),
)
EMBEDDED_KINDS = (
    Row("token_embd", "embeddings.word_embeddings"),
    Row("token_types", "embeddings.token_type_embeddings"),
    Row("token_embd_norm", "embeddings.LayerNorm"),
)

# Rules of all language models: what their tensors imply, and that attention is causal.
IMPLIED_RULES = (
    *VOCABULARY_RULES,
    Implied("tie_word_embeddings", lambda tensors: "output.weight" not in tensors),
    Only("attention.causal", True, "bidirectional attention is unsupported"),
)

# Rules that also apply to models with other norms.
SIZE_RULES = (
    Field("block_count", "num_hidden_layers", limit=tensor_count),
    Field("context_length", "max_position_embeddings"),
    Field("embedding_length", "hidden_size", limit=largest_dimension),
    Field("feed_forward_length", "intermediate_size", limit=largest_dimension),
    Field("attention.head_count", "num_attention_heads", limit=largest_dimension),
    Field("attention.head_count_kv", "num_key_value_heads", required=False, limit=largest_dimension),
    *HEAD_SIZES,
    *IMPLIED_RULES,
)


def with_own(rules: Iterable[Rule], *own: Rule) -> tuple[Rule, ...]:
    """Return rules, in place of some of which a model has its own, which map the same keys."""
    keys = {key for rule in own for key in rule.keys}
    return (*(rule for rule in rules if keys.isdisjoint(rule.keys)), *own)


# Rules that also apply if only a part of each head is rotated.
COMMON_RULES = (*SIZE_RULES, Field("attention.layer_norm_rms_epsilon", "rms_norm_eps", float))


def layer_norm_epsilon(name: str) -> Field:
    """Return the rule for the epsilon of norms with a mean, given the name of its field."""
    return Field("attention.layer_norm_epsilon", name, float)


def in_first_layer(tensor: str) -> Callable[[Mapping[str, TensorInfo]], bool]:
    """Return whether the first layer has a tensor: for `Implied`."""
    return lambda tensors: f"blk.0.{tensor}" in tensors


ROTATED_SIZE = Field("rope.dimension_count", "head_dim", required=False, limit=largest_dimension)

DECODER_RULES = (*COMMON_RULES, Unwritable("hidden_act", "silu"), ROTATED_SIZE, Rope())

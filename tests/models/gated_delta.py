"""Cases of tiny models with layers of the gated delta rule, and of gated attention."""

from tests.models.case import SHORT_IDS, Case
from tests.models.mixtures import EXPERTS

# Heads of values in groups of three; the last two layers have attention.
LAYERS = {
    **SHORT_IDS,
    "num_hidden_layers": 5,
    "initializer_range": 0.03,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"] * 2,
}
# As many heads of values as of keys; sizes that llama.cpp has equal differ.
ODD = {
    **LAYERS,
    "hidden_size": 96,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "num_hidden_layers": 4,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 3,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 3,
    "layer_types": None,
    "tie_word_embeddings": True,
}

GATED_DELTA = {
    "qwen35": Case("Qwen3_5Text", LAYERS),
    "qwen35-tied-odd-heads": Case("Qwen3_5Text", ODD),
    "qwen35moe": Case("Qwen3_5MoeText", {**LAYERS, **EXPERTS}),
    "qwen3next": Case("Qwen3Next", {**LAYERS, **EXPERTS}),
    "qwen3next-tied-odd-heads": Case(
        "Qwen3Next", {**ODD, **EXPERTS, "num_experts": 5, "num_experts_per_tok": 1}
    ),
}
# What GGUF cannot say.
GATED_DELTA_UNWRITABLE = {
    "qwen35-biases": Case("Qwen3_5Text", {**LAYERS, "attention_bias": True}),
    "qwen3next-dense-layers": Case(
        "Qwen3Next", {**LAYERS, **EXPERTS, "mlp_only_layers": [1], "norm_topk_prob": False}
    ),
}

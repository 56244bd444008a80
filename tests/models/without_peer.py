"""Cases of architectures that transformers lacks: configs of ours, one for each thing that can go wrong."""

from typing import Any

from tests.models.case import MULTIPLIERS, SIZES

BIASES = {"attention_bias": True, "attention_out_bias": True, "mlp_bias": True}
STREAM_MULTIPLIERS = {key: x for key, x in MULTIPLIERS.items() if key != "attention_multiplier"}
ODD_HEADS = {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1}

# Of DeciLM: attention of three kinds, one matrix, an MLP alone, nothing.
UNEQUAL_LAYERS = {
    "num_hidden_layers": 6,
    "num_attention_heads_per_layer": [4, 4, 0, 0, 4, 4],
    "num_key_value_heads_per_layer": [2, 0, 0, 0, 1, 4],
    "intermediate_size_per_layer": [256, 512, 256, 0, 768, 256],
}

# name -> model type, config beyond the sizes of all
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "internlm2": ("internlm2", {}),
    "xverse": ("xverse", {}),
    "orion": ("orion", ODD_HEADS),
    "pangu": ("pangu_embedded", {"tie_word_embeddings": True}),
    "maincoder": ("maincoder", {"head_dim": 32}),
    "baichuan-rotated": ("baichuan", {"num_hidden_layers": 32, "hidden_size": 32}),
    "baichuan-alibi": ("baichuan", {"num_hidden_layers": 40, "hidden_size": 48, "num_attention_heads": 6}),
    "baichuan-neither": ("baichuan", {}),
    "qwen": ("qwen", {"num_key_value_heads": 4}),
    "codeshell": ("codeshell", {}),
    "refact": ("refact", ODD_HEADS),
    "jais": ("jais", {"num_key_value_heads": 4}),
    "minicpm": ("minicpm", {**STREAM_MULTIPLIERS, **BIASES}),
    "plamo": ("plamo", {}),
    "deepseek": (
        "deepseek",
        {
            "n_routed_experts": 7,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "routed_scaling_factor": 1.7,
        },
    ),
    "deepseek-shared": (
        "deepseek",
        {
            **ODD_HEADS,
            "n_routed_experts": 4,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 24,
            "n_shared_experts": 3,
        },
    ),
    "deci": ("deci", UNEQUAL_LAYERS),
}


def sizes(name: str) -> dict[str, Any]:
    """Return the fields of a case's config."""
    return {**SIZES, **CASES[name][1]}

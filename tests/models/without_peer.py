"""Cases of architectures that transformers lacks: configs of ours, one for each thing that can go wrong."""

from typing import Any

from tests.models.case import MULTIPLIERS, SIZES, rope

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

ROUTED = {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 32}
SHARED = {
    "n_routed_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "routed_scaling_factor": 1.7,
}
# Of heads whose numbers are rotated by time, height and width.
SECTIONS = {**rope("default", mrope_section=[6, 5, 5])}

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
    "exaone": ("exaone", {"tie_word_embeddings": True}),
    "nanbeige": ("nanbeige", ODD_HEADS),
    "cogvlm": ("cogvlm", {"num_key_value_heads": 4}),
    # llama.cpp does not read the epsilon of this model.
    "qwen2vl": ("qwen2_vl_text", {**SECTIONS, "rms_norm_eps": 1e-12}),
    "qwen3vl": ("qwen3_vl_text", {"head_dim": 32, **SECTIONS}),
    "qwen3vlmoe": ("qwen3_vl_moe_text", {"head_dim": 32, **SECTIONS, **ROUTED}),
    "hunyuanvl": ("hunyuan_vl_text", {"head_dim": 32, **SECTIONS}),
    "paddleocr": ("paddleocr_vl_text", {"head_dim": 32, **SECTIONS}),
    "bailingmoe": ("bailing_moe", {**SHARED, "n_shared_experts": 2}),
    "bailingmoe2": ("bailing_moe_v2", {**SHARED, "n_routed_experts": 8, "n_group": 4, "topk_group": 2}),
    "dream": ("dream", {}),
    "llada": ("llada", {}),
    "lladamoe": ("llada_moe", {**ROUTED, "num_key_value_heads": 4}),
    "rnd1": ("rnd1", {**ROUTED, "head_dim": 32}),
    "arctic": ("arctic", {"num_experts": 7, "num_experts_per_tok": 3}),
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

# Models that see texts in both directions, and have no cache.
BIDIRECTIONAL = ("dream", "llada", "lladamoe", "rnd1")
# Tensors that llama.cpp wants in files, though they are for images only: shapes by names in a layer.
FOR_IMAGES = {
    "cogvlm": {
        "vis_attn_qkv": (192, 64),
        "vis_attn_output": (64, 64),
        **{f"vis_{part}": (96, 64) for part in ("gate", "up")},
        "vis_down": (64, 96),
    }
}


def sizes(name: str) -> dict[str, Any]:
    """Return the fields of a case's config."""
    return {**SIZES, **CASES[name][1]}

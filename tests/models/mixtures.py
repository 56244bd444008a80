"""Cases of tiny mixtures of experts."""

import math
from typing import Any

from tests.models.case import MULTIPLIERS, SHORT_IDS, Case, longrope, rope

EXPERTS = {
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 80,
}

ROUTED = {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True}

# The factor that llama.cpp's converter computes from the lengths, whatever the config states.
PHIMOE_SCALES = {
    "original_max_position_embeddings": 640,
    **dict.fromkeys(("short_mscale", "long_mscale"), math.sqrt(1 + math.log(4) / math.log(640))),
}

PHIMOE = {
    **longrope(8, original=640, longest=2560, **PHIMOE_SCALES),
    "attention_bias": True,
    "lm_head_bias": True,
}

# Short wavelengths, between which YaRN's ramp ends: without truncation, on other numbers of a head.
GPT_OSS = {
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    **rope(
        "yarn",
        factor=4.0,
        original_max_position_embeddings=64,
        beta_fast=32.0,
        beta_slow=1.0,
        truncate=False,
    ),
}

SIGMOIDS = {
    **SHORT_IDS,
    "n_routed_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.7,
}

# The converter wants another name of the rotated part, and that of what turns scores into weights.
MINIMAX = {
    **SHORT_IDS,
    "head_dim": 32,
    "num_local_experts": 7,
    "num_experts_per_tok": 3,
    "scoring_func": "sigmoid",
}

ERNIE_MOE = {"moe_num_experts": 7, "moe_k": 3, "moe_intermediate_size": 24}

LATENT = {
    **SIGMOIDS,
    "num_key_value_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
}

LATENT_SIGMOIDS = {**LATENT, "first_k_dense_replace": 1, "scoring_func": "sigmoid"}


def latent_yarn(factor: float) -> dict[str, Any]:
    """DeepSeek's rotation: YaRN's factor is on the scores, not on cosine and sine."""
    factors = {"mscale": factor, "mscale_all_dim": factor, "beta_fast": 32.0, "beta_slow": 1.0}
    return rope("yarn", factor=4.0, original_max_position_embeddings=64, **factors)


# The converter reads no default of the function that turns scores into weights.
EXAONE_MOE = {
    **SHORT_IDS,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "num_shared_experts": 2,
    "sliding_window": 7,
    "scoring_func": "sigmoid",
}


MIXTURES = {
    "qwen2moe": Case("Qwen2Moe", EXPERTS),
    "qwen2moe-mha": Case("Qwen2Moe", {**EXPERTS, "num_key_value_heads": 4, "num_experts_per_tok": 1}),
    "qwen2moe-odd-heads": Case(
        "Qwen2Moe",
        {**EXPERTS, "hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "num_experts": 5},
    ),
    "qwen2moe-no-biases": Case("Qwen2Moe", {**EXPERTS, "qkv_bias": False, "num_experts_per_tok": 7}),
    "qwen2moe-tied": Case("Qwen2Moe", {**EXPERTS, "tie_word_embeddings": True}),
    "qwen2moe-yarn": Case(
        "Qwen2Moe", {**EXPERTS, **rope("yarn", factor=2.0, original_max_position_embeddings=128)}
    ),
    "qwen3moe": Case("Qwen3Moe", {**ROUTED, "head_dim": 32}),
    "qwen3moe-tied": Case("Qwen3Moe", {**ROUTED, "head_dim": 16, "tie_word_embeddings": True}),
    "mixtral": Case("Mixtral", {"num_local_experts": 4}),
    "mixtral-odd-heads": Case(
        "Mixtral",
        {
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
        },
    ),
    "gpt-oss": Case("GptOss", {**GPT_OSS, **rope("default"), "head_dim": 32, "sliding_window": 7}),
    # llama.cpp truncates the ends of YaRN's ramp for this model too (ggml_rope_yarn_corr_dims): a bug of its.
    "gpt-oss-mqa-yarn": Case(
        "GptOss",
        {
            **GPT_OSS,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "num_experts_per_tok": 1,
        },
    ),
    "granitemoe": Case("GraniteMoe", {**MULTIPLIERS, "num_local_experts": 7, "num_experts_per_tok": 3}),
    "granitemoe-shared": Case(
        "GraniteMoeShared",
        {**MULTIPLIERS, "num_local_experts": 5, "num_experts_per_tok": 2, "shared_intermediate_size": 80},
    ),
    "granitemoe-tied-biases": Case(
        "GraniteMoe",
        {
            **MULTIPLIERS,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
            "num_key_value_heads": 4,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    # llama.cpp reads only files with as many heads of keys as of queries.
    "olmoe": Case("Olmoe", {**ROUTED, **SHORT_IDS, "norm_topk_prob": False, "num_key_value_heads": 4}),
    "olmoe-odd-heads": Case(
        "Olmoe",
        {
            **SHORT_IDS,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_experts": 4,
            "num_experts_per_tok": 1,
        },
    ),
    # llama.cpp has norms without a mean, and weighs experts by a softmax of all: its runtime is no reference.
    "phimoe": Case("Phimoe", {**PHIMOE, "num_local_experts": 7}),
    "phimoe-odd-heads": Case(
        "Phimoe",
        {
            **PHIMOE,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_local_experts": 4,
            **longrope(16, original=640, longest=2560, **PHIMOE_SCALES),
        },
    ),
    "glm4moe": Case("Glm4Moe", {**SIGMOIDS, "use_qk_norm": True, "num_nextn_predict_layers": 0}),
    "glm4moe-groups": Case(
        "Glm4Moe",
        {
            **SIGMOIDS,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "attention_bias": True,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "tie_word_embeddings": True,
        },
    ),
    "exaonemoe": Case(
        "ExaoneMoe",
        {
            **EXAONE_MOE,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "head_dim": 32,
        },
    ),
    "exaonemoe-odd-heads": Case(
        "ExaoneMoe",
        {
            **EXAONE_MOE,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "num_shared_experts": 1,
        },
    ),
    "hunyuanmoe": Case(
        "HunYuanMoEV1", {**SHORT_IDS, "num_experts": 7, "moe_topk": 3, "head_dim": 16, "eod_token_id": 2}
    ),
    "hunyuanmoe-odd-heads": Case(
        "HunYuanMoEV1",
        {
            **SHORT_IDS,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "num_experts": 3,
            "tie_word_embeddings": True,
        },
    ),
    # llama.cpp has as many heads of keys as of queries.
    "dots1": Case(
        "Dots1",
        {
            **SIGMOIDS,
            "num_key_value_heads": 4,
            "first_k_dense_replace": 1,
            "scoring_func": "sigmoid",
            "sliding_window": None,
        },
    ),
    "minimax": Case("MiniMaxM2", {**MINIMAX, "rotary_dim": 16}),
    "minimax-tied-odd-heads": Case(
        "MiniMaxM2",
        {
            **MINIMAX,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "rotary_dim": 32,
            "num_local_experts": 3,
            "num_experts_per_tok": 1,
            "tie_word_embeddings": True,
        },
    ),
    # The converter's size of shared experts is that of released models: intermediate_size / heads of keys.
    "erniemoe": Case("Ernie4_5_Moe", {**ERNIE_MOE, "moe_num_shared_experts": 2}),
    "erniemoe-untied-odd-heads": Case(
        "Ernie4_5_Moe",
        {
            **ERNIE_MOE,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "moe_num_experts": 3,
            "moe_k": 1,
            "moe_num_shared_experts": 0,
            "moe_layer_start_index": 0,
            "moe_layer_interval": 2,
            "tie_word_embeddings": False,
        },
    ),
    # llama.cpp reads queries that are not compressed only in models of certain numbers of layers.
    "deepseek2": Case(
        "DeepseekV2",
        {
            **LATENT,
            "scoring_func": "softmax",
            "q_lora_rank": None,
            "num_hidden_layers": 26,
            "initializer_range": 0.08,
        },
    ),
    "deepseek2-yarn": Case("DeepseekV2", {**LATENT, "first_k_dense_replace": 1, **latent_yarn(0.707)}),
    "deepseek3": Case("DeepseekV3", {**LATENT_SIGMOIDS, "n_group": 1, "topk_group": 1}),
    "deepseek3-yarn-groups": Case(
        "DeepseekV3",
        {
            **LATENT_SIGMOIDS,
            **latent_yarn(1.0),
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "first_k_dense_replace": 0,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "tie_word_embeddings": True,
        },
    ),
}

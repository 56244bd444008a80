"""Cases of tiny models with layers of Mamba 2."""

from tests.models.case import MULTIPLIERS, SHORT_IDS, Case

MAMBA, ATTENTION = "linear_attention", "full_attention"

# Texts are longer than a chunk. The converter wants heads of 64 numbers in all, or a multiple.
NEMOTRON_H = {
    "mamba_num_heads": 6,
    "mamba_head_dim": 32,
    "n_groups": 3,
    "ssm_state_size": 8,
    "chunk_size": 16,
}
NEMOTRON_EXPERTS = {
    **NEMOTRON_H,
    "layers_block_type": [MAMBA, "moe", ATTENTION, "moe"],
    "n_routed_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 40,
    "routed_scaling_factor": 1.7,
}

# The converter states 2^20 as the longest text. llama.cpp wants mixers of twice the width.
GRANITE = {
    **MULTIPLIERS,
    **SHORT_IDS,
    "layer_types": [MAMBA, ATTENTION, MAMBA],
    "max_position_embeddings": 2**20,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "shared_intermediate_size": 96,
    "mamba_n_heads": 8,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
}

FALCON = {
    **SHORT_IDS,
    "mamba_d_ssm": 96,
    "mamba_n_heads": 6,
    "mamba_n_groups": 3,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
    "mamba_norm_before_gate": False,
}

MAMBA2 = {
    "mamba2": Case("Mamba2", {"num_heads": 8, "head_dim": 16, "n_groups": 2, "chunk_size": 16}),
    "mamba2-tied": Case(
        "Mamba2",
        {
            "num_heads": 6,
            "head_dim": 32,
            "n_groups": 1,
            "expand": 3,
            "conv_kernel": 3,
            "chunk_size": 16,
            "tie_word_embeddings": True,
        },
    ),
    "falconh1": Case(
        "FalconH1",
        {
            **FALCON,
            "head_dim": 32,
            "mamba_rms_norm": True,
            "lm_head_multiplier": 0.3,
            "embedding_multiplier": 3.1,
            "mlp_multipliers": [0.7, 0.6],
            "key_multiplier": 0.9,
            "attention_out_multiplier": 0.8,
            "attention_in_multiplier": 1.3,
            "ssm_multipliers": [0.7, 0.9, 1.2, 0.6, 0.8],
            "ssm_in_multiplier": 1.2,
            "ssm_out_multiplier": 0.7,
        },
    ),
    "falconh1-tied-odd-heads": Case(
        "FalconH1",
        {
            **FALCON,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "mamba_d_conv": 3,
            "mlp_bias": True,
            "embedding_multiplier": 1.7,
            "lm_head_multiplier": 1.7,
            "tie_word_embeddings": True,
        },
    ),
    "granitehybrid": Case("GraniteMoeHybrid", {**GRANITE, "mamba_n_groups": 2}),
    "granitehybrid-experts": Case(
        "GraniteMoeHybrid",
        {
            **GRANITE,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 80,
            "mamba_n_heads": 6,
            "mamba_d_conv": 3,
            "attention_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "nemotronh": Case(
        "NemotronH", {**NEMOTRON_H, "layers_block_type": [MAMBA, ATTENTION, "mlp", MAMBA, "mlp"]}
    ),
    "nemotronh-biases-odd-heads": Case(
        "NemotronH",
        {
            **NEMOTRON_H,
            "layers_block_type": ["mlp", MAMBA, MAMBA, ATTENTION],
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "n_groups": 1,
            "conv_kernel": 3,
            "mlp_bias": True,
        },
    ),
    "nemotronh-experts": Case("NemotronH", {**NEMOTRON_EXPERTS, "moe_latent_size": 32}),
    "nemotronh-experts-groups": Case(
        "NemotronH",
        {
            **NEMOTRON_EXPERTS,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "num_key_value_heads": 1,
        },
    ),
}

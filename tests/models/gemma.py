"""Cases of Gemma 3n and Gemma 4: more fields than others have."""

from tests.models.case import Case

_TWO_KINDS = ["sliding_attention", "full_attention"]

# Keys of layers 2 and 3 are those that layers 4 to 7 read, each of its kind, as llama.cpp finds them.
GEMMA4 = {
    "num_hidden_layers": 8,
    "layer_types": [*_TWO_KINDS, *_TWO_KINDS, *_TWO_KINDS, "sliding_attention", "full_attention"],
    "sliding_window": 7,
    "head_dim": 16,
    "global_head_dim": 32,
    "vocab_size_per_layer_input": 400,
    "hidden_size_per_layer_input": 24,
    "initializer_range": 0.15,
    "final_logit_softcapping": 5.0,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    },
}

_GEMMA3N = {
    "vocab_size_per_layer_input": 400,
    "initializer_range": 0.15,
    "sliding_window": 7,
    "head_dim": 16,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    },
}

GEMMA = {
    "gemma3n-shared": Case(
        "Gemma3nText",
        {
            **_GEMMA3N,
            "num_hidden_layers": 6,
            "num_key_value_heads": 1,
            "layer_types": [*_TWO_KINDS, *_TWO_KINDS, *_TWO_KINDS],
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": 390,
            "hidden_size_per_layer_input": 24,
            "laurel_rank": 8,
            "altup_active_idx": 2,
            "final_logit_softcapping": 5.0,
            "activation_sparsity_pattern": [0.6, 0.0, 0.3, 0.0, 0.0, 0.95],
        },
    ),
    # As few layers as llama.cpp runs, which counts those with keys of their own by itself.
    "gemma3n": Case(
        "Gemma3nText",
        {
            **_GEMMA3N,
            "head_dim": 4,
            "num_hidden_layers": 20,
            "num_kv_shared_layers": 0,
            "initializer_range": 0.02,  # so many sparse layers magnify what FP32 rounds
            "hidden_size_per_layer_input": 256,
            "laurel_rank": 64,
        },
    ),
    # As E2B and E4B.
    "gemma4": Case(
        "Gemma4Text",
        {**GEMMA4, "num_kv_shared_layers": 4, "use_double_wide_mlp": True, "num_key_value_heads": 1},
    ),
    # As 31B: no per-layer embeddings, and keys that are values.
    "gemma4-equal-odd-heads": Case(
        "Gemma4Text",
        {
            **GEMMA4,
            "num_hidden_layers": 4,
            "layer_types": [*_TWO_KINDS, *_TWO_KINDS],
            "hidden_size": 96,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
        },
    ),
    # As 26B-A4B: experts beside the MLP.
    "gemma4-experts": Case(
        "Gemma4Text",
        {
            **GEMMA4,
            "num_hidden_layers": 4,
            "layer_types": [*_TWO_KINDS, *_TWO_KINDS],
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "enable_moe_block": True,
            "num_experts": 7,
            "top_k_experts": 3,
            "moe_intermediate_size": 32,
        },
    ),
}

"""Tiny random models of transformers, one for each thing that can go wrong, and the same models here."""

from typing import Any

import torch
import transformers

import torchgguf.models as ours
from tests.models.case import MULTIPLIERS, OWN_SIZES, SHORT_IDS, SIZES, Case, longrope, rope
from tests.models.gemma import GEMMA
from tests.models.hybrids import HYBRIDS, UNWRITABLE_HYBRIDS
from tests.models.mixtures import ERNIE_MOE, EXPERTS, LATENT, LATENT_SIGMOIDS, MIXTURES, ROUTED

# Queries grow within a short text.
MINISTRAL_ROPE = rope(
    "yarn",
    factor=4.0,
    original_max_position_embeddings=5,
    beta_fast=32.0,
    beta_slow=1.0,
    mscale=1.0,
    mscale_all_dim=1.0,
    llama_4_scaling_beta=0.3,
)

# Ends of the names of parameters that new models have at 1 or 0, which would hide what becomes of them.
FACTORS = ("layer_scalar", "router.scale", "per_expert_scale", "correct_output_scale")

NO_DROPOUT = {"attention_dropout": 0.0, "residual_dropout": 0.0}

CASES = {
    "llama": Case("Llama", {}),
    "llama-mha": Case("Llama", {"num_key_value_heads": 4}),
    "llama-mqa-odd-heads": Case(
        "Llama", {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1}
    ),
    "llama-head-dim": Case("Llama", {"head_dim": 32}),
    "llama-tied": Case("Llama", {"tie_word_embeddings": True}),
    "llama-biases": Case("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-linear": Case("Llama", rope("linear", factor=3.0)),
    "llama-llama3": Case(
        "Llama",
        rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "llama-llama3-released": Case(
        "Llama",
        rope(
            "llama3",
            rope_theta=500000.0,
            factor=32.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
    "llama-yarn": Case("Llama", rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "llama-yarn-all": Case(
        "Llama",
        rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=64,
            attention_factor=1.3,
            beta_fast=16.0,
            beta_slow=2.0,
        ),
    ),
    "qwen2": Case("Qwen2", {}),
    "qwen2-tied": Case("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-yarn": Case("Qwen2", rope("yarn", factor=2.0, original_max_position_embeddings=128)),
    "qwen2-sliding": Case("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3": Case("Qwen3", {"head_dim": 32}),
    "qwen3-tied-mha": Case("Qwen3", {"head_dim": 16, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen3-yarn": Case(
        "Qwen3", {"head_dim": 8, **rope("yarn", factor=2.0, original_max_position_embeddings=128)}
    ),
    "qwen3-sliding": Case(
        "Qwen3", {"head_dim": 32, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    ),
    "ministral3": Case("Ministral3", {"head_dim": 32, **MINISTRAL_ROPE}),
    "smollm3": Case("SmolLM3", {"num_hidden_layers": 4, "pad_token_id": None, "eos_token_id": 2}),
    "gemma": Case("Gemma", {"head_dim": 32}),
    "gemma2": Case("Gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 7}),
    "gemma3": Case(
        "Gemma3Text",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 7,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 100000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
        },
    ),
    "jais2": Case("Jais2", SHORT_IDS),
    "olmo": Case("Olmo", {**SHORT_IDS, "clip_qkv": 0.4}),
    "olmo2": Case("Olmo2", {"pad_token_id": None, "eos_token_id": 2}),
    "olmo3": Case(
        "Olmo3",
        {
            "pad_token_id": None,
            "eos_token_id": 2,
            "sliding_window": 7,
            "num_hidden_layers": 5,
            "rope_parameters": {
                "full_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000.0}
                | {"original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
        },
    ),
    "seed": Case("SeedOss", {"head_dim": 32, **SHORT_IDS, **NO_DROPOUT}),
    "seed-biases": Case(
        "SeedOss", {"head_dim": 32, **SHORT_IDS, **NO_DROPOUT, "attention_out_bias": True, "mlp_bias": True}
    ),
    "arcee": Case("Arcee", SHORT_IDS),
    "ernie": Case("Ernie4_5", {"head_dim": 32}),
    "exaone4": Case("Exaone4", {**SHORT_IDS, "sliding_window": None, "layer_types": ["full_attention"] * 3}),
    "hunyuan": Case("HunYuanDenseV1", {**SHORT_IDS, "head_dim": 16, "eod_token_id": 2}),
    "neox": Case(
        "GPTNeoX",
        {
            **SHORT_IDS,
            **rope("default", rope_theta=10000.0, partial_rotary_factor=0.5),
        },
    ),
    "neox-sequential-odd-heads": Case(
        "GPTNeoX",
        {
            **SHORT_IDS,
            **rope("default", rope_theta=10000.0, partial_rotary_factor=0.25),
            "hidden_size": 96,
            "num_attention_heads": 3,
            "use_parallel_residual": False,
        },
    ),
    # The converter states the width as the length, a fixed epsilon and a fixed base.
    "glm": Case(
        "Glm",
        {
            **SHORT_IDS,
            **rope("default", rope_theta=10000.0, partial_rotary_factor=0.5),
            "head_dim": 16,
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5,
        },
    ),
    "glm4": Case("Glm4", {"head_dim": 32, **SHORT_IDS}),
    "cohere": Case("Cohere", {**SHORT_IDS, "logit_scale": 1.5}),
    "cohere-norms": Case("Cohere", {**SHORT_IDS, "use_qk_norm": True}),
    "cohere2": Case(  # the converter wants another name of the rotated part
        "Cohere2",
        {
            **SHORT_IDS,
            "sliding_window": 7,
            "num_hidden_layers": 5,
            "logit_scale": 1.5,
            "rotary_pct": 1.0,
        },
    ),
    "starcoder2": Case("Starcoder2", SHORT_IDS),
    "starcoder2-untied": Case("Starcoder2", {**SHORT_IDS, "tie_word_embeddings": False}),
    "falcon": Case("Falcon", {"num_kv_heads": 1}),
    "falcon-new": Case("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-new-untied-odd-heads": Case(
        "Falcon",
        {
            "hidden_size": 96,
            "num_attention_heads": 6,
            "new_decoder_architecture": True,
            "num_kv_heads": 3,
            "num_ln_in_parallel_attn": 1,
            "tie_word_embeddings": False,
        },
    ),
    "nemotron": Case("Nemotron", SHORT_IDS),
    "stablelm": Case("StableLm", {**SHORT_IDS, "partial_rotary_factor": 0.25}),
    "stablelm-parallel": Case("StableLm", {**SHORT_IDS, "use_parallel_residual": True, "use_qkv_bias": True}),
    "granite": Case("Granite", MULTIPLIERS),
    "granite-tied-odd-heads": Case(
        "Granite",
        {
            **MULTIPLIERS,
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    # The converter assumes MLPs of four times the width, a base of 10000 and as many heads of keys as of
    # queries.
    "phi2": Case("Phi", {"intermediate_size": 256, "num_key_value_heads": 4}),
    "phi2-odd-heads": Case(
        "Phi",
        {
            **rope("default", rope_theta=10000.0, partial_rotary_factor=1.0),
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
        },
    ),
    "mistral": Case("Mistral", {"sliding_window": None}),
    "mistral-sliding": Case("Mistral", {"sliding_window": 7}),
    "gpt2": Case("GPT2", {}),
    "gpt2-short": Case("GPT2", {"n_positions": 100, "n_ctx": 100}),
    "gpt2-untied-odd-heads": Case("GPT2", {"n_embd": 96, "n_head": 3, "tie_word_embeddings": False}),
    # Not "phi3": in a file with that in its name llama.cpp wants tokens of Phi-3's own vocabulary.
    "phi": Case("Phi3", {}),
    "phi-mha-tied": Case("Phi3", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "phi-odd-heads": Case("Phi3", {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1}),
    "phi-windowed": Case("Phi3", {"sliding_window": 7}),
    "phi-partial": Case("Phi3", rope("default", partial_rotary_factor=0.75)),
    "phi-short": Case("Phi3", longrope(8, original=640, longest=2560)),
    "phi-long": Case("Phi3", longrope(8, original=4, longest=256)),
    "phi-long-partial": Case("Phi3", longrope(6, original=4, longest=256, partial_rotary_factor=0.75)),
    "bigcode": Case("GPTBigCode", {}),
    "bigcode-untied-odd-heads": Case("GPTBigCode", {"n_embd": 96, "n_head": 3, "tie_word_embeddings": False}),
    "bloom": Case("Bloom", {"seq_length": 256}),
    "bloom-odd-heads": Case("Bloom", {"hidden_size": 80, "n_head": 5}),
    "bloom-heads-beyond-a-power": Case("Bloom", {"hidden_size": 96, "n_head": 12}),
    "bloom-untied": Case("Bloom", {"tie_word_embeddings": False}),
    **GEMMA,
    **HYBRIDS,
    **MIXTURES,
}
# What GGUF cannot say.
UNWRITABLE = {
    **UNWRITABLE_HYBRIDS,
    "bigcode-heads": Case("GPTBigCode", {"multi_query": False, "scale_attn_weights": False, "n_inner": 80}),
    "bloom-post-layernorm": Case("Bloom", {"apply_residual_connection_post_layernorm": True}),
    "gpt2-unscaled": Case("GPT2", {"scale_attn_weights": False, "activation_function": "relu"}),
    "gpt2-scaled": Case(
        "GPT2",
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True, "n_inner": 80},
    ),
    "erniemoe-biases": Case("Ernie4_5_Moe", {**ERNIE_MOE, "use_bias": True, "tie_word_embeddings": False}),
    "erniemoe-end": Case("Ernie4_5_Moe", {**ERNIE_MOE, "moe_layer_end_index": 1}),
    # llama.cpp ranks groups by the sum of two experts, transformers by one.
    "deepseek2-groups": Case(
        "DeepseekV2",
        {
            **LATENT,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "topk_method": "group_limited_greedy",
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "deepseek3-halves": Case(
        "DeepseekV3",
        {**LATENT_SIGMOIDS, "n_group": 1, "topk_group": 1, "rope_interleave": False, "attention_bias": True},
    ),
    "arcee-biases": Case("Arcee", {**SHORT_IDS, "attention_bias": True, "mlp_bias": True}),
    "olmoe-clipped": Case(
        "Olmoe", {**ROUTED, **SHORT_IDS, "num_experts": 4, "clip_qkv": 0.4, "attention_bias": True}
    ),
    "phi2-norms": Case("Phi", {"qk_layernorm": True, "num_key_value_heads": 1}),
    "phimoe-mixing": Case("Phimoe", {"num_local_experts": 7, "router_jitter_noise": 0.4, **rope("default")}),
    "qwen3-biases": Case("Qwen3", {"attention_bias": True}),
    "qwen2moe-normalised": Case("Qwen2Moe", {**EXPERTS, "norm_topk_prob": True}),
    "qwen2moe-dense-layer": Case("Qwen2Moe", {**EXPERTS, "mlp_only_layers": [1]}),
    "qwen2moe-every-other": Case("Qwen2Moe", {**EXPERTS, "decoder_sparse_step": 2}),
    "qwen2moe-sliding": Case(
        "Qwen2Moe", {**EXPERTS, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}
    ),
}
# What GGUF can say, but no converter from Hugging Face for these architectures.
LONGROPE = Case(
    "Llama",
    rope(
        "longrope",
        short_factor=[1.0 + 0.05 * i for i in range(8)],
        long_factor=[2.0 + 0.5 * i for i in range(8)],
        attention_factor=1.19,
        original_max_position_embeddings=20,
    ),
)


def config_of(case: Case) -> Any:
    """The config of a case, as transformers' class."""
    sizes = OWN_SIZES.get(case.kind, SIZES)
    return getattr(transformers, f"{case.kind}Config")(**{**sizes, **case.config})


def reference(case: Case, auto_class: str = "AutoModelForCausalLM") -> Any:
    """The transformers model, random but always the same. Biases are not zero, nor norms one."""
    torch.manual_seed(0)
    config = config_of(case)
    model = getattr(transformers, auto_class).from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("bias") and parameter.is_floating_point():  # a mask may have this name, too
                parameter.normal_(std=0.5)
            elif "norm" in name.lower() or ".ln_" in name or name.endswith(FACTORS):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith((".A_log", ".D")):  # new ones are the same in all channels
                parameter.add_(torch.rand_like(parameter) - 0.5)
    return model


def counterpart(
    model: Any, attn_implementation: str = "sdpa", auto_class: str = "AutoModelForCausalLM"
) -> Any:
    """Return the model here that has the config and the weights of a transformers one."""
    config = ours.AutoConfig.for_model(**model.config.to_dict())
    twin = getattr(ours, auto_class).from_config(config, attn_implementation=attn_implementation).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def training(model: Any) -> Any:
    """Put a model in training mode, except the routers that would then choose at random; return it."""
    model.train()
    for module in model.modules():
        if type(module).__name__ in ("PhimoeTopKRouter", "PhimoeMoeBlock"):
            module.eval()
    return model

"""A case of a tiny model: the sizes of all, and how its config differs."""

from dataclasses import dataclass
from typing import Any

SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
}


# Of models that consist of mixers only.
MAMBA = {
    "vocab_size": 400,
    "hidden_size": 64,
    "state_size": 8,
    "num_hidden_layers": 3,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}

# Of models whose configs have other fields. `n_ctx` is what llama.cpp's converter asks for.
OWN_SIZES = {
    **{
        kind: {} for kind in ("Bert", "ModernBert", "NomicBert")
    },  # encoders state all of theirs: tests/models/test_bert.py
    "GPT2": {
        "vocab_size": 400,
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 256,
        "n_ctx": 256,
        "initializer_range": 0.15,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "GPTBigCode": {
        "vocab_size": 400,
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 256,
        "initializer_range": 0.15,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "Bloom": {
        "vocab_size": 400,
        "hidden_size": 64,
        "n_layer": 3,
        "n_head": 4,
        "initializer_range": 0.15,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    # The length that llama.cpp's converter states whatever the config does.
    "Falcon": {
        "vocab_size": 400,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "Qwen3_5MoeText": {name: size for name, size in SIZES.items() if name != "intermediate_size"},
    "Mamba": MAMBA,
    "Mamba2": MAMBA,
    "FalconMamba": MAMBA,
    # The length that llama.cpp's converter states whatever the config does.
    "NemotronH": {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2**20,
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    },
    "GPTNeoX": {key: size for key, size in SIZES.items() if key != "num_key_value_heads"},
    "Phi3": {**SIZES, "original_max_position_embeddings": 256, "eos_token_id": 2, "pad_token_id": None},
}


@dataclass(frozen=True)
class Case:
    """A kind of model, what differs from `SIZES`."""

    kind: str
    config: dict[str, Any]


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    """`rope_parameters` of a config; short wavelengths, so that scaling shows within a short text."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1000.0} | parameters}


def longrope(frequencies: int, original: int, longest: int, **parameters: Any) -> dict[str, Any]:
    """Config of a Phi-3 with other frequencies for texts longer than `original`."""
    scaling = rope(
        "longrope",
        short_factor=[1.0 + 0.05 * i for i in range(frequencies)],
        long_factor=[2.0 + 0.5 * i for i in range(frequencies)],
        **parameters,
    )
    return {**scaling, "original_max_position_embeddings": original, "max_position_embeddings": longest}


# Instead of ids beyond the vocabulary.
SHORT_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.3,
    "attention_multiplier": 0.4,
}

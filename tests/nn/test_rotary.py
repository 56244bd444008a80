"""Rotary embeddings against transformers, and against the formulas of papers that it leaves out."""

import math

import pytest
import torch
import transformers
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.phi3 import modeling_phi3

from torchgguf.nn import RotaryEmbedding, rotate

DIM = 32
KINDS = {
    "default": {},
    "linear": {"factor": 3.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 512},
    "yarn-betas": {
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
    },
    "yarn-untruncated": {"factor": 4.0, "original_max_position_embeddings": 512, "truncate": False},
    "yarn-mscale": {
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "mscale": 0.7,
        "mscale_all_dim": 1.2,
    },
    "yarn-attention": {"factor": 4.0, "original_max_position_embeddings": 512, "attention_factor": 0.8},
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "short_factor": [1 + i / 8 for i in range(16)],
        "long_factor": [2 + i / 2 for i in range(16)],
    },
}


def parameters(name: str) -> dict:
    return {"rope_type": name.split("-")[0], "rope_theta": 20000.0, **KINDS[name]}


@pytest.mark.parametrize("start", [0, 500, 1500])
@pytest.mark.parametrize("name", KINDS)
def test_like_transformers(name, start):
    config = transformers.LlamaConfig(
        hidden_size=4 * DIM,
        num_attention_heads=4,
        max_position_embeddings=2048,
        rope_parameters=parameters(name),
    )
    theirs, ours = LlamaRotaryEmbedding(config), RotaryEmbedding(parameters(name), DIM)
    positions = torch.arange(start, start + 40)[None].repeat(2, 1)
    query, key = torch.randn(2, 4, 40, DIM), torch.randn(2, 2, 40, DIM)
    expected = apply_rotary_pos_emb(query, key, *theirs(query, positions))
    cos, sin, _ = ours(positions, torch.float32)
    for x, rotated in zip((query, key), expected, strict=True):
        assert_close(rotate(x.transpose(1, 2), cos, sin).transpose(1, 2), rotated, atol=2e-4, rtol=0)


PARTS = {  # how much of a head is rotated, what the frequencies are divided by for short and for long texts
    "half": (0.5, {}),
    "three-quarters": (0.75, {}),
    "three-quarters-longrope": (
        0.75,
        {
            "rope_type": "longrope",
            "original_max_position_embeddings": 512,
            "short_factor": [1 + i / 8 for i in range(12)],
            "long_factor": [2 + i / 2 for i in range(12)],
        },
    ),
}


@pytest.mark.parametrize("start", [0, 471, 472, 473, 1500])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_heads_like_transformers(name, start):
    """LongRoPE's two sets change places where the text is one longer than the original length."""
    part, scaling = PARTS[name]
    given = {"rope_type": "default", "rope_theta": 20000.0, "partial_rotary_factor": part, **scaling}
    config = transformers.Phi3Config(
        hidden_size=4 * DIM,
        num_attention_heads=4,
        max_position_embeddings=2048,
        original_max_position_embeddings=512,
        rope_parameters=dict(given),
    )
    theirs, ours = modeling_phi3.Phi3RotaryEmbedding(config), RotaryEmbedding({**given, "factor": 4.0}, DIM)
    positions = torch.arange(start, start + 40)[None].repeat(2, 1)
    query, key = torch.randn(2, 4, 40, DIM), torch.randn(2, 2, 40, DIM)
    expected = modeling_phi3.apply_rotary_pos_emb(query, key, *theirs(query, positions))
    cos, sin, _ = ours(positions, torch.float32)
    for x, rotated in zip((query, key), expected, strict=True):
        assert_close(rotate(x.transpose(1, 2), cos, sin).transpose(1, 2), rotated, atol=2e-4, rtol=0)


@pytest.mark.parametrize("part", [0.0, -0.5, 0.1, 1.25])
def test_impossible_parts_of_heads(part):
    with pytest.raises(ValueError, match=rf"partial_rotary_factor={part} would rotate -?\d+ of .* {DIM} "):
        RotaryEmbedding({**parameters("default"), "partial_rotary_factor": part}, DIM)


def test_extrapolation_factor():
    """As in YaRN's code (LlamaYaRNScaledRotaryEmbedding): it scales what is left of the plain frequency."""
    given = {**parameters("yarn"), "extrapolation_factor": 0.5}
    factor, original, theta = given["factor"], given["original_max_position_embeddings"], given["rope_theta"]

    def dimension(rotations):
        return DIM * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), DIM - 1)
    for i, actual in enumerate(RotaryEmbedding(given, DIM).inv_freq.tolist()):
        plain = theta ** (-2 * i / DIM)
        kept = 0.5 * (1 - min(max((i - low) / (high - low), 0), 1))
        assert actual == pytest.approx(plain / factor * (1 - kept) + plain * kept, rel=1e-5)


def test_frequencies_are_made_once_and_never_rounded():
    with torch.device("meta"):
        rotary = RotaryEmbedding(parameters("yarn"), DIM)
    expected = RotaryEmbedding(parameters("yarn"), DIM).inv_freq
    assert torch.equal(rotary.to(torch.bfloat16).inv_freq, expected)
    assert not list(rotary.parameters()) and not rotary.state_dict()


def test_unknown_or_incomplete_scaling():
    with pytest.raises(ValueError, match=r"'spiral'.*linear.*yarn"):
        RotaryEmbedding({"rope_type": "spiral", "rope_theta": 1e4}, DIM)
    with pytest.raises(ValueError, match="low_freq_factor"):
        RotaryEmbedding({"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}, DIM)
    with pytest.raises(ValueError, match=r"short_factor.*needs 16"):
        RotaryEmbedding(parameters("longrope") | {"short_factor": [1.0]}, DIM)


def test_a_rotation_without_values():
    """On the meta device nothing is read: tools that trace a model run it there."""
    rotation = RotaryEmbedding(parameters("longrope"), DIM)(
        torch.arange(4, device="meta")[None], torch.float32
    )
    assert rotation.cos.is_meta
    assert rotation.cos.shape == (1, 4, 1, DIM)

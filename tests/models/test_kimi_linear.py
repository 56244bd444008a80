"""Kimi Linear: the shapes that llama.cpp's tools write, and what GGUF cannot say."""

import pytest
import torch

from tests.models.tiny import CASES, Case, counterpart, reference
from torchgguf.container import TensorSource, open_gguf, write_gguf
from torchgguf.models import AutoModelForCausalLM, KimiLinearConfig


@pytest.fixture(scope="module")
def model():
    return counterpart(reference(CASES["kimi"]))


@torch.no_grad()
def test_shapes_without_leading_ones(model, tmp_path):
    """As llama-quantize writes: such a file is loaded, and written back as it was."""
    paths = [tmp_path / f"{name}.gguf" for name in ("whole", "short", "again")]
    model.save_gguf(paths[0])
    with open_gguf(paths[0]) as file:
        tensors = {}
        for name, info in file.tensors.items():
            shape = info.shape
            while len(shape) > 1 and shape[0] == 1:
                shape = shape[1:]
            tensors[name] = TensorSource(
                shape, info.type, lambda name=name, shape=shape: file[name].view(shape)
            )
        assert tensors["blk.0.ssm_a"].shape == (4, 1)
        assert tensors["blk.0.ssm_conv1d_k.weight"].shape == (64, 1, 4)
        write_gguf(paths[1], file.metadata, tensors)
    ids = torch.arange(20)[None]
    loaded = AutoModelForCausalLM.from_pretrained(paths[1])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    loaded.save_gguf(paths[2])
    assert paths[2].read_bytes() == paths[1].read_bytes()


def test_released_configs(model):
    """They number layers from 1."""
    attention = {"head_dim": 8, "num_heads": 2, "short_conv_kernel_size": 3, "full_attn_layers": [2, 4]}
    config = KimiLinearConfig(num_hidden_layers=4, first_k_dense_replace=2, linear_attn_config=attention)
    assert (config.linear_head_dim, config.linear_num_heads, config.linear_conv_kernel_dim) == (8, 2, 3)
    assert [kind == "full_attention" for kind in config.layer_types] == [False, True, False, True]
    assert config.mlp_layer_types == ["dense", "dense", "sparse", "sparse"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear_num_heads": 2}, "linear_num_heads=2: readers assume 4"),
        ({"mlp_layer_types": ["sparse", "dense", "sparse"]}, "without experts after layers with experts"),
        ({"norm_topk_prob": False}, "moe_renormalize=False: readers assume True"),
    ],
    ids=str,
)
def test_what_gguf_cannot_say(changes, message, tmp_path):
    case = CASES["kimi"]
    twin = counterpart(reference(Case(case.kind, case.config | changes)))
    with pytest.raises(ValueError, match=message):
        twin.save_gguf(tmp_path / "out.gguf")

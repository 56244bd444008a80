"""Checkpoints of transformers, made like those that were released, where the converter knows no others."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

# Classes whose names in released checkpoints are the only ones that the converter knows.
_CLASSES = {"PhimoeForCausalLM": "PhiMoEForCausalLM", "UMT5EncoderModel": "T5EncoderModel"}


def _without_experts(config: dict[str, Any]) -> None:
    """Name the kinds of layers by letters, as only released configs of models without experts do.

    The converter must read the file itself: transformers' config states a number of experts in any case.
    """
    kinds = config["layers_block_type"]
    if "moe" not in kinds:
        letters = {"linear_attention": "M", "full_attention": "*", "mlp": "-"}
        config["hybrid_override_pattern"] = "".join(letters[kind] for kind in kinds)
        config["num_hidden_layers"] = len(kinds)
        for key in ("model_type", "num_experts_per_tok", "n_routed_experts", "n_group", "topk_group"):
            del config[key]


def _older_layer_types(config: dict[str, Any]) -> None:
    """Name the kinds of layers as released configs do; transformers' config would rename them."""
    names = {"linear_attention": "mamba", "full_attention": "attention"}
    config["layer_types"] = [names[kind] for kind in config["layer_types"]]
    del config["model_type"]


def _older_rotated_part(config: dict[str, Any]) -> None:
    """Name the rotated part as released configs do; transformers' config would rename it."""
    config["rotary_pct"] = config["rope_parameters"]["partial_rotary_factor"]
    del config["model_type"]


def _lists_of_experts(config: dict[str, Any]) -> None:
    """State sizes and numbers of experts layer by layer."""
    numbers = {
        "moe_intermediate_size": config["intermediate_size"],
        "moe_topk": config["moe_topk"],
        "num_shared_expert": 1,
    }
    config |= {name: [number] * config["num_hidden_layers"] for name, number in numbers.items()}


# Models whose released configs state something in another way, the only one that the converter knows.
_CONFIGS = {
    "gpt_neox": _older_rotated_part,
    "granitemoehybrid": _older_layer_types,
    "hunyuan_v1_moe": _lists_of_experts,
    "nemotron_h": _without_experts,
}


@contextmanager
def released(folder: Path, model: Any) -> Iterator[None]:
    """Make the checkpoint of a model like a released one; in the end its config is transformers' again."""
    kind, config = model.config.model_type, folder / "config.json"
    if kind == "kimi_linear":
        _release_kimi(folder)
    if (stored := type(model).__name__) in _CLASSES:
        config.write_text(config.read_text().replace(stored, _CLASSES[stored]))
    text = config.read_text()
    if kind in _CONFIGS:
        values = json.loads(text)
        _CONFIGS[kind](values)
        config.write_text(json.dumps(values))
    try:
        yield
    finally:
        config.write_text(text)


def _release_kimi(folder: Path) -> None:
    """State config and names as released checkpoints do: the converter does not know transformers' own."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    full = [i + 1 for i, kind in enumerate(config["layer_types"]) if kind == "full_attention"]
    config["linear_attn_config"] = {
        "full_attn_layers": full,
        "kda_layers": [i + 1 for i in range(config["num_hidden_layers"]) if i + 1 not in full],
        "head_dim": config["linear_head_dim"],
        "num_heads": config["linear_num_heads"],
        "short_conv_kernel_size": config["linear_conv_kernel_dim"],
    }
    config["first_k_dense_replace"] = config["mlp_layer_types"].count("dense")
    config["moe_router_activation_func"] = "sigmoid"
    path.write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    dense = re.compile(r"block_sparse_moe\.(gate|up|down)_proj")
    save_file(
        {dense.sub(r"mlp.\1_proj", name): each for name, each in tensors.items()},
        folder / "model.safetensors",
    )

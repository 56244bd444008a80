"""Tiny models of transformers with random adapters of PEFT, saved; and the files of these models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests.models.tiny import CASES, reference
from tests.peers.llama_cpp import convert

IDS = torch.tensor([[5, 6, 7, 8, 9, 11, 60, 80]])

LINEAR: dict[str, Any] = {"target_modules": "all-linear"}

# What adapters change in a model: layers with rows in another order, with columns in another order, with
# weights transposed, several in one tensor or one in several.
TARGETS: dict[str, dict[str, Any]] = {
    "llama": LINEAR,
    "qwen2": {"target_modules": ["embed_tokens", "k_proj", "lm_head"]},
    "gpt2": LINEAR,
    "phi": LINEAR,
    "gemma3": LINEAR,
    "bloom": LINEAR,
}
EXPERTS: dict[str, dict[str, Any]] = {
    "qwen3moe": {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
    "gpt-oss": {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
}


def adapted(model: Any, **settings: Any) -> PeftModel:
    """Add a random adapter to a model of transformers, the same for the same settings."""
    torch.manual_seed(3)
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, **settings})
    peft = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.15)
    return peft


@dataclass(frozen=True)
class Adapted:
    """A model of transformers as files, and an adapter for it.

    Attributes:
        folder: of the model.
        file: the model as llama.cpp's converter makes it.
        adapter: PEFT's folder.
        logits: of the model with the adapter, `(1, T, vocab_size)`.
    """

    folder: Path
    file: Path
    adapter: Path
    logits: torch.Tensor


@torch.no_grad()
def publish(case: str, place: Path, **settings: Any) -> Adapted:
    """Save a model and an adapter, and convert the model."""
    file = convert({case: reference(CASES[case])}, place, {})[case]
    peft = adapted(reference(CASES[case]), **settings)
    peft.save_pretrained(place / "adapter")
    return Adapted(place / case, file, place / "adapter", peft(input_ids=IDS).logits)

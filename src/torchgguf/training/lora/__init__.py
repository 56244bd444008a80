"""LoRA: low-rank adapters beside weights that stay as they are, packed or plain."""

from torchgguf.training.lora.adding import add_lora, remove_adapter
from torchgguf.training.lora.merging import merge_adapters, merge_and_unload, unmerge_adapters
from torchgguf.training.lora.settings import ALL_LINEAR, LoraSettings
from torchgguf.training.lora.state import adapter_state_dict, load_adapter_state_dict
from torchgguf.training.lora.switching import adapter_settings, disable_adapters, set_adapters

__all__ = [
    "ALL_LINEAR",
    "LoraSettings",
    "adapter_settings",
    "adapter_state_dict",
    "add_lora",
    "disable_adapters",
    "load_adapter_state_dict",
    "merge_adapters",
    "merge_and_unload",
    "remove_adapter",
    "set_adapters",
    "unmerge_adapters",
]

"""Adapters as files, of PEFT and of llama.cpp, and between both."""

from torchgguf.training.adapters.changes import AdapterError
from torchgguf.training.adapters.converting import convert_adapter
from torchgguf.training.adapters.models import load_adapter, save_adapter

__all__ = ["AdapterError", "convert_adapter", "load_adapter", "save_adapter"]

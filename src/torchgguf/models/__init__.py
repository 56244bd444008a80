"""Models: one file an architecture, Auto classes, loading and saving."""

from torchgguf.models.auto import AutoConfig, AutoModel, AutoModelForCausalLM
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.config import PreTrainedConfig
from torchgguf.models.llama import LlamaConfig, LlamaForCausalLM, LlamaModel, LlamaPreTrainedModel
from torchgguf.models.mistral import MistralConfig, MistralForCausalLM, MistralModel, MistralPreTrainedModel
from torchgguf.models.outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from torchgguf.models.qwen2 import Qwen2Config, Qwen2ForCausalLM, Qwen2Model, Qwen2PreTrainedModel
from torchgguf.nn import ModelOutput

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "BaseModelOutputWithPast",
    "CausalLMOutputWithPast",
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaModel",
    "LlamaPreTrainedModel",
    "MistralConfig",
    "MistralForCausalLM",
    "MistralModel",
    "MistralPreTrainedModel",
    "ModelOutput",
    "PreTrainedConfig",
    "PreTrainedModel",
    "Qwen2Config",
    "Qwen2ForCausalLM",
    "Qwen2Model",
    "Qwen2PreTrainedModel",
]

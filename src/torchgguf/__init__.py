"""GGUF files as PyTorch models: run them, fine-tune them, write them back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchgguf.container import GGUFError, open_gguf, write_gguf
    from torchgguf.conversion import convert_to_checkpoint, convert_to_gguf
    from torchgguf.generation import (
        GenerateBeamDecoderOnlyOutput,
        GenerateDecoderOnlyOutput,
        GenerationConfig,
        TextIteratorStreamer,
        TextStreamer,
    )
    from torchgguf.models import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        BitsAndBytesConfig,
        BloomConfig,
        BloomForCausalLM,
        BloomForQuestionAnswering,
        BloomForSequenceClassification,
        BloomForTokenClassification,
        BloomModel,
        CheckpointError,
        GGUFQuantizationConfig,
        GPT2Config,
        GPT2DoubleHeadsModel,
        GPT2DoubleHeadsModelOutput,
        GPT2ForQuestionAnswering,
        GPT2ForSequenceClassification,
        GPT2ForTokenClassification,
        GPT2LMHeadModel,
        GPT2Model,
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForQuestionAnswering,
        LlamaForSequenceClassification,
        LlamaForTokenClassification,
        LlamaModel,
        MistralConfig,
        MistralForCausalLM,
        MistralForQuestionAnswering,
        MistralForSequenceClassification,
        MistralForTokenClassification,
        MistralModel,
        Phi3Config,
        Phi3ForCausalLM,
        Phi3ForSequenceClassification,
        Phi3ForTokenClassification,
        Phi3Model,
        PreTrainedConfig,
        PreTrainedModel,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen2ForQuestionAnswering,
        Qwen2ForSequenceClassification,
        Qwen2ForTokenClassification,
        Qwen2Model,
        Qwen2MoeConfig,
        Qwen2MoeForCausalLM,
        Qwen2MoeForQuestionAnswering,
        Qwen2MoeForSequenceClassification,
        Qwen2MoeForTokenClassification,
        Qwen2MoeModel,
    )
    from torchgguf.nn import DynamicCache, StaticCache
    from torchgguf.packing import ImportanceMatrix, PackingReport, Quantization, load_imatrix
    from torchgguf.pipelines import Pipeline, pipeline
    from torchgguf.tokenization import AutoTokenizer, GPT2Tokenizer, GPT2TokenizerFast, Tokenizer

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForQuestionAnswering",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoTokenizer",
    "BitsAndBytesConfig",
    "BloomConfig",
    "BloomForCausalLM",
    "BloomForQuestionAnswering",
    "BloomForSequenceClassification",
    "BloomForTokenClassification",
    "BloomModel",
    "CheckpointError",
    "DynamicCache",
    "GGUFError",
    "GGUFQuantizationConfig",
    "GPT2Config",
    "GPT2DoubleHeadsModel",
    "GPT2DoubleHeadsModelOutput",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
    "GPT2LMHeadModel",
    "GPT2Model",
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateDecoderOnlyOutput",
    "GenerationConfig",
    "ImportanceMatrix",
    "LlamaConfig",
    "LlamaForCausalLM",
    "LlamaForQuestionAnswering",
    "LlamaForSequenceClassification",
    "LlamaForTokenClassification",
    "LlamaModel",
    "MistralConfig",
    "MistralForCausalLM",
    "MistralForQuestionAnswering",
    "MistralForSequenceClassification",
    "MistralForTokenClassification",
    "MistralModel",
    "PackingReport",
    "Phi3Config",
    "Phi3ForCausalLM",
    "Phi3ForSequenceClassification",
    "Phi3ForTokenClassification",
    "Phi3Model",
    "Pipeline",
    "PreTrainedConfig",
    "PreTrainedModel",
    "Quantization",
    "Qwen2Config",
    "Qwen2ForCausalLM",
    "Qwen2ForQuestionAnswering",
    "Qwen2ForSequenceClassification",
    "Qwen2ForTokenClassification",
    "Qwen2Model",
    "Qwen2MoeConfig",
    "Qwen2MoeForCausalLM",
    "Qwen2MoeForQuestionAnswering",
    "Qwen2MoeForSequenceClassification",
    "Qwen2MoeForTokenClassification",
    "Qwen2MoeModel",
    "StaticCache",
    "TextIteratorStreamer",
    "TextStreamer",
    "Tokenizer",
    "convert_to_checkpoint",
    "convert_to_gguf",
    "load_imatrix",
    "open_gguf",
    "pipeline",
    "write_gguf",
]

# Where public names are looked for when first asked for, so that `import torchgguf` itself costs nothing.
_PACKAGES = (
    "container",
    "packing",
    "nn",
    "tokenization",
    "generation",
    "models",
    "conversion",
    "pipelines",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for package in _PACKAGES:
            module = import_module(f"{__name__}.{package}")
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

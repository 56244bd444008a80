from torchgguf.models.architectures.bloom import (
    BloomConfig as BloomConfig,
    BloomForCausalLM as BloomForCausalLM,
    BloomForQuestionAnswering as BloomForQuestionAnswering,
    BloomForSequenceClassification as BloomForSequenceClassification,
    BloomForTokenClassification as BloomForTokenClassification,
    BloomModel as BloomModel,
)
from torchgguf.models.architectures.gemma import (
    GemmaConfig as GemmaConfig,
    GemmaForCausalLM as GemmaForCausalLM,
    GemmaForSequenceClassification as GemmaForSequenceClassification,
    GemmaForTokenClassification as GemmaForTokenClassification,
    GemmaModel as GemmaModel,
)
from torchgguf.models.architectures.gemma2 import (
    Gemma2Config as Gemma2Config,
    Gemma2ForCausalLM as Gemma2ForCausalLM,
    Gemma2ForSequenceClassification as Gemma2ForSequenceClassification,
    Gemma2ForTokenClassification as Gemma2ForTokenClassification,
    Gemma2Model as Gemma2Model,
)
from torchgguf.models.architectures.gemma3_text import (
    Gemma3ForCausalLM as Gemma3ForCausalLM,
    Gemma3TextConfig as Gemma3TextConfig,
    Gemma3TextForSequenceClassification as Gemma3TextForSequenceClassification,
    Gemma3TextModel as Gemma3TextModel,
)
from torchgguf.models.architectures.gpt2 import (
    GPT2Config as GPT2Config,
    GPT2ForQuestionAnswering as GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification as GPT2ForSequenceClassification,
    GPT2ForTokenClassification as GPT2ForTokenClassification,
    GPT2LMHeadModel as GPT2LMHeadModel,
    GPT2Model as GPT2Model,
    GPT2PreTrainedModel as GPT2PreTrainedModel,
)
from torchgguf.models.architectures.gpt2_double_heads import (
    GPT2DoubleHeadsModel as GPT2DoubleHeadsModel,
    GPT2DoubleHeadsModelOutput as GPT2DoubleHeadsModelOutput,
)
from torchgguf.models.architectures.llama import (
    LlamaConfig as LlamaConfig,
    LlamaForCausalLM as LlamaForCausalLM,
    LlamaForQuestionAnswering as LlamaForQuestionAnswering,
    LlamaForSequenceClassification as LlamaForSequenceClassification,
    LlamaForTokenClassification as LlamaForTokenClassification,
    LlamaModel as LlamaModel,
)
from torchgguf.models.architectures.ministral3 import (
    Ministral3Config as Ministral3Config,
    Ministral3ForCausalLM as Ministral3ForCausalLM,
    Ministral3ForQuestionAnswering as Ministral3ForQuestionAnswering,
    Ministral3ForSequenceClassification as Ministral3ForSequenceClassification,
    Ministral3ForTokenClassification as Ministral3ForTokenClassification,
    Ministral3Model as Ministral3Model,
)
from torchgguf.models.architectures.mistral import (
    MistralConfig as MistralConfig,
    MistralForCausalLM as MistralForCausalLM,
    MistralForQuestionAnswering as MistralForQuestionAnswering,
    MistralForSequenceClassification as MistralForSequenceClassification,
    MistralForTokenClassification as MistralForTokenClassification,
    MistralModel as MistralModel,
)
from torchgguf.models.architectures.mixtral import (
    MixtralConfig as MixtralConfig,
    MixtralForCausalLM as MixtralForCausalLM,
    MixtralForQuestionAnswering as MixtralForQuestionAnswering,
    MixtralForSequenceClassification as MixtralForSequenceClassification,
    MixtralForTokenClassification as MixtralForTokenClassification,
    MixtralModel as MixtralModel,
)
from torchgguf.models.architectures.phi3 import (
    Phi3Config as Phi3Config,
    Phi3ForCausalLM as Phi3ForCausalLM,
    Phi3ForSequenceClassification as Phi3ForSequenceClassification,
    Phi3ForTokenClassification as Phi3ForTokenClassification,
    Phi3Model as Phi3Model,
)
from torchgguf.models.architectures.qwen2 import (
    Qwen2Config as Qwen2Config,
    Qwen2ForCausalLM as Qwen2ForCausalLM,
    Qwen2ForQuestionAnswering as Qwen2ForQuestionAnswering,
    Qwen2ForSequenceClassification as Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification as Qwen2ForTokenClassification,
    Qwen2Model as Qwen2Model,
)
from torchgguf.models.architectures.qwen2_moe import (
    Qwen2MoeConfig as Qwen2MoeConfig,
    Qwen2MoeForCausalLM as Qwen2MoeForCausalLM,
    Qwen2MoeForQuestionAnswering as Qwen2MoeForQuestionAnswering,
    Qwen2MoeForSequenceClassification as Qwen2MoeForSequenceClassification,
    Qwen2MoeForTokenClassification as Qwen2MoeForTokenClassification,
    Qwen2MoeModel as Qwen2MoeModel,
)
from torchgguf.models.architectures.qwen3 import (
    Qwen3Config as Qwen3Config,
    Qwen3ForCausalLM as Qwen3ForCausalLM,
    Qwen3ForQuestionAnswering as Qwen3ForQuestionAnswering,
    Qwen3ForSequenceClassification as Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification as Qwen3ForTokenClassification,
    Qwen3Model as Qwen3Model,
)
from torchgguf.models.architectures.qwen3_moe import (
    Qwen3MoeConfig as Qwen3MoeConfig,
    Qwen3MoeForCausalLM as Qwen3MoeForCausalLM,
    Qwen3MoeForQuestionAnswering as Qwen3MoeForQuestionAnswering,
    Qwen3MoeForSequenceClassification as Qwen3MoeForSequenceClassification,
    Qwen3MoeForTokenClassification as Qwen3MoeForTokenClassification,
    Qwen3MoeModel as Qwen3MoeModel,
)
from torchgguf.models.architectures.smollm3 import (
    SmolLM3Config as SmolLM3Config,
    SmolLM3ForCausalLM as SmolLM3ForCausalLM,
    SmolLM3ForQuestionAnswering as SmolLM3ForQuestionAnswering,
    SmolLM3ForSequenceClassification as SmolLM3ForSequenceClassification,
    SmolLM3ForTokenClassification as SmolLM3ForTokenClassification,
    SmolLM3Model as SmolLM3Model,
)
from torchgguf.models.auto import (
    AutoConfig as AutoConfig,
    AutoModel as AutoModel,
    AutoModelForCausalLM as AutoModelForCausalLM,
    AutoModelForQuestionAnswering as AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification as AutoModelForSequenceClassification,
    AutoModelForTokenClassification as AutoModelForTokenClassification,
)
from torchgguf.models.blocks.outputs import (
    BaseModelOutputWithPast as BaseModelOutputWithPast,
    BaseModelOutputWithPastAndCrossAttentions as BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions as CausalLMOutputWithCrossAttentions,
    CausalLMOutputWithPast as CausalLMOutputWithPast,
    MoeCausalLMOutputWithPast as MoeCausalLMOutputWithPast,
    MoeModelOutputWithPast as MoeModelOutputWithPast,
    QuestionAnsweringModelOutput as QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast as SequenceClassifierOutputWithPast,
    TokenClassifierOutput as TokenClassifierOutput,
)
from torchgguf.models.io.checkpoint import CheckpointError as CheckpointError
from torchgguf.models.pretrained.config import PreTrainedConfig as PreTrainedConfig
from torchgguf.models.pretrained.model import PreTrainedModel as PreTrainedModel
from torchgguf.models.quantizers.bitsandbytes import BitsAndBytesConfig as BitsAndBytesConfig
from torchgguf.models.quantizers.gguf import GGUFQuantizationConfig as GGUFQuantizationConfig
from torchgguf.nn import ModelOutput as ModelOutput

from torchgguf.models.architectures.bloom import (
    BloomConfig as BloomConfig,
    BloomForCausalLM as BloomForCausalLM,
    BloomForQuestionAnswering as BloomForQuestionAnswering,
    BloomForSequenceClassification as BloomForSequenceClassification,
    BloomForTokenClassification as BloomForTokenClassification,
    BloomModel as BloomModel,
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
from torchgguf.models.architectures.mistral import (
    MistralConfig as MistralConfig,
    MistralForCausalLM as MistralForCausalLM,
    MistralForQuestionAnswering as MistralForQuestionAnswering,
    MistralForSequenceClassification as MistralForSequenceClassification,
    MistralForTokenClassification as MistralForTokenClassification,
    MistralModel as MistralModel,
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
from torchgguf.models.auto import (
    CONFIG_MAPPING as CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING as MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING as MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING as MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING as MODEL_MAPPING,
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
from torchgguf.models.pretrained.any_model import save_gguf as save_gguf
from torchgguf.models.pretrained.config import (
    PreTrainedConfig as PreTrainedConfig,
    PretrainedConfig as PretrainedConfig,
)
from torchgguf.models.pretrained.model import PreTrainedModel as PreTrainedModel
from torchgguf.models.quantizers.bitsandbytes import BitsAndBytesConfig as BitsAndBytesConfig
from torchgguf.models.quantizers.gguf import GGUFQuantizationConfig as GGUFQuantizationConfig
from torchgguf.nn import ModelOutput as ModelOutput

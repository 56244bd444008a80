from torchgguf.models.architectures.arcee import (
    ArceeConfig as ArceeConfig,
    ArceeForCausalLM as ArceeForCausalLM,
    ArceeForQuestionAnswering as ArceeForQuestionAnswering,
    ArceeForSequenceClassification as ArceeForSequenceClassification,
    ArceeForTokenClassification as ArceeForTokenClassification,
    ArceeModel as ArceeModel,
)
from torchgguf.models.architectures.arctic import (
    ArcticConfig as ArcticConfig,
    ArcticForCausalLM as ArcticForCausalLM,
    ArcticModel as ArcticModel,
)
from torchgguf.models.architectures.baichuan import (
    BaichuanConfig as BaichuanConfig,
    BaichuanForCausalLM as BaichuanForCausalLM,
    BaichuanModel as BaichuanModel,
)
from torchgguf.models.architectures.bailing_moe import (
    BailingMoeConfig as BailingMoeConfig,
    BailingMoeForCausalLM as BailingMoeForCausalLM,
    BailingMoeModel as BailingMoeModel,
)
from torchgguf.models.architectures.bailing_moe_v2 import (
    BailingMoeV2Config as BailingMoeV2Config,
    BailingMoeV2ForCausalLM as BailingMoeV2ForCausalLM,
    BailingMoeV2Model as BailingMoeV2Model,
)
from torchgguf.models.architectures.bert import (
    BertConfig as BertConfig,
    BertForQuestionAnswering as BertForQuestionAnswering,
    BertForSequenceClassification as BertForSequenceClassification,
    BertForTokenClassification as BertForTokenClassification,
    BertModel as BertModel,
)
from torchgguf.models.architectures.bloom import (
    BloomConfig as BloomConfig,
    BloomForCausalLM as BloomForCausalLM,
    BloomForQuestionAnswering as BloomForQuestionAnswering,
    BloomForSequenceClassification as BloomForSequenceClassification,
    BloomForTokenClassification as BloomForTokenClassification,
    BloomModel as BloomModel,
)
from torchgguf.models.architectures.codeshell import (
    CodeShellConfig as CodeShellConfig,
    CodeShellForCausalLM as CodeShellForCausalLM,
    CodeShellModel as CodeShellModel,
)
from torchgguf.models.architectures.cogvlm import (
    CogVLMConfig as CogVLMConfig,
    CogVLMForCausalLM as CogVLMForCausalLM,
    CogVLMModel as CogVLMModel,
)
from torchgguf.models.architectures.cohere import (
    CohereConfig as CohereConfig,
    CohereForCausalLM as CohereForCausalLM,
    CohereModel as CohereModel,
    ScaledForCausalLM as ScaledForCausalLM,
)
from torchgguf.models.architectures.cohere2 import (
    Cohere2Config as Cohere2Config,
    Cohere2ForCausalLM as Cohere2ForCausalLM,
    Cohere2Model as Cohere2Model,
)
from torchgguf.models.architectures.deci import (
    DeciLMConfig as DeciLMConfig,
    DeciLMForCausalLM as DeciLMForCausalLM,
    DeciLMModel as DeciLMModel,
)
from torchgguf.models.architectures.deepseek import (
    DeepseekConfig as DeepseekConfig,
    DeepseekForCausalLM as DeepseekForCausalLM,
    DeepseekModel as DeepseekModel,
)
from torchgguf.models.architectures.deepseek_v2 import (
    DeepseekV2Config as DeepseekV2Config,
    DeepseekV2ForCausalLM as DeepseekV2ForCausalLM,
    DeepseekV2ForSequenceClassification as DeepseekV2ForSequenceClassification,
    DeepseekV2Model as DeepseekV2Model,
)
from torchgguf.models.architectures.deepseek_v3 import (
    DeepseekV3Config as DeepseekV3Config,
    DeepseekV3ForCausalLM as DeepseekV3ForCausalLM,
    DeepseekV3ForSequenceClassification as DeepseekV3ForSequenceClassification,
    DeepseekV3ForTokenClassification as DeepseekV3ForTokenClassification,
    DeepseekV3Model as DeepseekV3Model,
)
from torchgguf.models.architectures.dots1 import (
    Dots1Config as Dots1Config,
    Dots1ForCausalLM as Dots1ForCausalLM,
    Dots1Model as Dots1Model,
)
from torchgguf.models.architectures.dream import (
    DreamConfig as DreamConfig,
    DreamForCausalLM as DreamForCausalLM,
    DreamModel as DreamModel,
)
from torchgguf.models.architectures.ernie4_5 import (
    Ernie4_5Config as Ernie4_5Config,
    Ernie4_5ForCausalLM as Ernie4_5ForCausalLM,
    Ernie4_5Model as Ernie4_5Model,
)
from torchgguf.models.architectures.ernie4_5_moe import (
    Ernie4_5_MoeConfig as Ernie4_5_MoeConfig,
    Ernie4_5_MoeForCausalLM as Ernie4_5_MoeForCausalLM,
    Ernie4_5_MoeModel as Ernie4_5_MoeModel,
)
from torchgguf.models.architectures.exaone import (
    ExaoneConfig as ExaoneConfig,
    ExaoneForCausalLM as ExaoneForCausalLM,
    ExaoneModel as ExaoneModel,
)
from torchgguf.models.architectures.exaone4 import (
    Exaone4Config as Exaone4Config,
    Exaone4ForCausalLM as Exaone4ForCausalLM,
    Exaone4ForQuestionAnswering as Exaone4ForQuestionAnswering,
    Exaone4ForSequenceClassification as Exaone4ForSequenceClassification,
    Exaone4ForTokenClassification as Exaone4ForTokenClassification,
    Exaone4Model as Exaone4Model,
)
from torchgguf.models.architectures.exaone_moe import (
    ExaoneMoeConfig as ExaoneMoeConfig,
    ExaoneMoeForCausalLM as ExaoneMoeForCausalLM,
    ExaoneMoeModel as ExaoneMoeModel,
)
from torchgguf.models.architectures.falcon import (
    FalconConfig as FalconConfig,
    FalconForCausalLM as FalconForCausalLM,
    FalconForQuestionAnswering as FalconForQuestionAnswering,
    FalconForSequenceClassification as FalconForSequenceClassification,
    FalconForTokenClassification as FalconForTokenClassification,
    FalconModel as FalconModel,
)
from torchgguf.models.architectures.falcon_h1 import (
    FalconH1Config as FalconH1Config,
    FalconH1ForCausalLM as FalconH1ForCausalLM,
    FalconH1Model as FalconH1Model,
)
from torchgguf.models.architectures.falcon_mamba import (
    FalconMambaCausalLMOutput as FalconMambaCausalLMOutput,
    FalconMambaConfig as FalconMambaConfig,
    FalconMambaForCausalLM as FalconMambaForCausalLM,
    FalconMambaModel as FalconMambaModel,
    FalconMambaOutput as FalconMambaOutput,
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
from torchgguf.models.architectures.gemma3n_text import (
    Gemma3nForCausalLM as Gemma3nForCausalLM,
    Gemma3nTextConfig as Gemma3nTextConfig,
    Gemma3nTextModel as Gemma3nTextModel,
)
from torchgguf.models.architectures.gemma4_text import (
    Gemma4ForCausalLM as Gemma4ForCausalLM,
    Gemma4TextConfig as Gemma4TextConfig,
    Gemma4TextModel as Gemma4TextModel,
)
from torchgguf.models.architectures.glm import (
    GlmConfig as GlmConfig,
    GlmForCausalLM as GlmForCausalLM,
    GlmForSequenceClassification as GlmForSequenceClassification,
    GlmForTokenClassification as GlmForTokenClassification,
    GlmModel as GlmModel,
)
from torchgguf.models.architectures.glm4 import (
    Glm4Config as Glm4Config,
    Glm4ForCausalLM as Glm4ForCausalLM,
    Glm4ForSequenceClassification as Glm4ForSequenceClassification,
    Glm4ForTokenClassification as Glm4ForTokenClassification,
    Glm4Model as Glm4Model,
)
from torchgguf.models.architectures.glm4_moe import (
    Glm4MoeConfig as Glm4MoeConfig,
    Glm4MoeForCausalLM as Glm4MoeForCausalLM,
    Glm4MoeModel as Glm4MoeModel,
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
from torchgguf.models.architectures.gpt_bigcode import (
    GPTBigCodeConfig as GPTBigCodeConfig,
    GPTBigCodeForCausalLM as GPTBigCodeForCausalLM,
    GPTBigCodeForSequenceClassification as GPTBigCodeForSequenceClassification,
    GPTBigCodeForTokenClassification as GPTBigCodeForTokenClassification,
    GPTBigCodeModel as GPTBigCodeModel,
    GPTBigCodePreTrainedModel as GPTBigCodePreTrainedModel,
)
from torchgguf.models.architectures.gpt_neox import (
    GPTNeoXConfig as GPTNeoXConfig,
    GPTNeoXForCausalLM as GPTNeoXForCausalLM,
    GPTNeoXForQuestionAnswering as GPTNeoXForQuestionAnswering,
    GPTNeoXForSequenceClassification as GPTNeoXForSequenceClassification,
    GPTNeoXForTokenClassification as GPTNeoXForTokenClassification,
    GPTNeoXModel as GPTNeoXModel,
)
from torchgguf.models.architectures.gpt_oss import (
    GptOssConfig as GptOssConfig,
    GptOssForCausalLM as GptOssForCausalLM,
    GptOssForSequenceClassification as GptOssForSequenceClassification,
    GptOssForTokenClassification as GptOssForTokenClassification,
    GptOssModel as GptOssModel,
)
from torchgguf.models.architectures.granite import (
    GraniteConfig as GraniteConfig,
    GraniteForCausalLM as GraniteForCausalLM,
    GraniteModel as GraniteModel,
)
from torchgguf.models.architectures.granitemoe import (
    GraniteMoeConfig as GraniteMoeConfig,
    GraniteMoeForCausalLM as GraniteMoeForCausalLM,
    GraniteMoeModel as GraniteMoeModel,
)
from torchgguf.models.architectures.granitemoehybrid import (
    GraniteMoeHybridConfig as GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM as GraniteMoeHybridForCausalLM,
    GraniteMoeHybridModel as GraniteMoeHybridModel,
)
from torchgguf.models.architectures.granitemoeshared import (
    GraniteMoeSharedConfig as GraniteMoeSharedConfig,
    GraniteMoeSharedForCausalLM as GraniteMoeSharedForCausalLM,
    GraniteMoeSharedModel as GraniteMoeSharedModel,
)
from torchgguf.models.architectures.hunyuan_v1_dense import (
    HunYuanDenseV1Config as HunYuanDenseV1Config,
    HunYuanDenseV1ForCausalLM as HunYuanDenseV1ForCausalLM,
    HunYuanDenseV1ForSequenceClassification as HunYuanDenseV1ForSequenceClassification,
    HunYuanDenseV1Model as HunYuanDenseV1Model,
)
from torchgguf.models.architectures.hunyuan_v1_moe import (
    HunYuanMoEV1Config as HunYuanMoEV1Config,
    HunYuanMoEV1ForCausalLM as HunYuanMoEV1ForCausalLM,
    HunYuanMoEV1ForSequenceClassification as HunYuanMoEV1ForSequenceClassification,
    HunYuanMoEV1Model as HunYuanMoEV1Model,
)
from torchgguf.models.architectures.hunyuan_vl_text import (
    HunYuanVLTextConfig as HunYuanVLTextConfig,
    HunYuanVLTextForCausalLM as HunYuanVLTextForCausalLM,
    HunYuanVLTextModel as HunYuanVLTextModel,
)
from torchgguf.models.architectures.internlm2 import (
    InternLM2Config as InternLM2Config,
    InternLM2ForCausalLM as InternLM2ForCausalLM,
    InternLM2Model as InternLM2Model,
)
from torchgguf.models.architectures.jais import (
    JaisConfig as JaisConfig,
    JaisForCausalLM as JaisForCausalLM,
    JaisModel as JaisModel,
)
from torchgguf.models.architectures.jais2 import (
    Jais2Config as Jais2Config,
    Jais2ForCausalLM as Jais2ForCausalLM,
    Jais2Model as Jais2Model,
)
from torchgguf.models.architectures.jamba import (
    JambaConfig as JambaConfig,
    JambaForCausalLM as JambaForCausalLM,
    JambaForSequenceClassification as JambaForSequenceClassification,
    JambaModel as JambaModel,
)
from torchgguf.models.architectures.kimi_linear import (
    KimiLinearConfig as KimiLinearConfig,
    KimiLinearForCausalLM as KimiLinearForCausalLM,
    KimiLinearModel as KimiLinearModel,
)
from torchgguf.models.architectures.lfm2 import (
    Lfm2Config as Lfm2Config,
    Lfm2ForCausalLM as Lfm2ForCausalLM,
    Lfm2Model as Lfm2Model,
)
from torchgguf.models.architectures.lfm2_moe import (
    Lfm2MoeConfig as Lfm2MoeConfig,
    Lfm2MoeForCausalLM as Lfm2MoeForCausalLM,
    Lfm2MoeModel as Lfm2MoeModel,
)
from torchgguf.models.architectures.llada import (
    LLaDAConfig as LLaDAConfig,
    LLaDAForCausalLM as LLaDAForCausalLM,
    LLaDAModel as LLaDAModel,
)
from torchgguf.models.architectures.llada_moe import (
    LLaDAMoeConfig as LLaDAMoeConfig,
    LLaDAMoeForCausalLM as LLaDAMoeForCausalLM,
    LLaDAMoeModel as LLaDAMoeModel,
)
from torchgguf.models.architectures.llama import (
    LlamaConfig as LlamaConfig,
    LlamaForCausalLM as LlamaForCausalLM,
    LlamaForQuestionAnswering as LlamaForQuestionAnswering,
    LlamaForSequenceClassification as LlamaForSequenceClassification,
    LlamaForTokenClassification as LlamaForTokenClassification,
    LlamaModel as LlamaModel,
)
from torchgguf.models.architectures.maincoder import (
    MaincoderConfig as MaincoderConfig,
    MaincoderForCausalLM as MaincoderForCausalLM,
    MaincoderModel as MaincoderModel,
)
from torchgguf.models.architectures.mamba import (
    MambaCausalLMOutput as MambaCausalLMOutput,
    MambaConfig as MambaConfig,
    MambaForCausalLM as MambaForCausalLM,
    MambaModel as MambaModel,
    MambaOutput as MambaOutput,
)
from torchgguf.models.architectures.mamba2 import (
    Mamba2CausalLMOutput as Mamba2CausalLMOutput,
    Mamba2Config as Mamba2Config,
    Mamba2ForCausalLM as Mamba2ForCausalLM,
    Mamba2Model as Mamba2Model,
    Mamba2Output as Mamba2Output,
)
from torchgguf.models.architectures.minicpm import (
    MiniCPMConfig as MiniCPMConfig,
    MiniCPMForCausalLM as MiniCPMForCausalLM,
    MiniCPMModel as MiniCPMModel,
)
from torchgguf.models.architectures.minimax_m2 import (
    MiniMaxM2Config as MiniMaxM2Config,
    MiniMaxM2ForCausalLM as MiniMaxM2ForCausalLM,
    MiniMaxM2Model as MiniMaxM2Model,
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
from torchgguf.models.architectures.modernbert import (
    ModernBertConfig as ModernBertConfig,
    ModernBertForQuestionAnswering as ModernBertForQuestionAnswering,
    ModernBertForSequenceClassification as ModernBertForSequenceClassification,
    ModernBertForTokenClassification as ModernBertForTokenClassification,
    ModernBertModel as ModernBertModel,
)
from torchgguf.models.architectures.nanbeige import (
    NanbeigeConfig as NanbeigeConfig,
    NanbeigeForCausalLM as NanbeigeForCausalLM,
    NanbeigeModel as NanbeigeModel,
)
from torchgguf.models.architectures.nemotron import (
    NemotronConfig as NemotronConfig,
    NemotronForCausalLM as NemotronForCausalLM,
    NemotronForQuestionAnswering as NemotronForQuestionAnswering,
    NemotronForSequenceClassification as NemotronForSequenceClassification,
    NemotronForTokenClassification as NemotronForTokenClassification,
    NemotronModel as NemotronModel,
)
from torchgguf.models.architectures.nemotron_h import (
    NemotronHConfig as NemotronHConfig,
    NemotronHForCausalLM as NemotronHForCausalLM,
    NemotronHModel as NemotronHModel,
)
from torchgguf.models.architectures.nomic_bert import (
    NomicBertConfig as NomicBertConfig,
    NomicBertForSequenceClassification as NomicBertForSequenceClassification,
    NomicBertForTokenClassification as NomicBertForTokenClassification,
    NomicBertModel as NomicBertModel,
)
from torchgguf.models.architectures.olmo import (
    OlmoConfig as OlmoConfig,
    OlmoForCausalLM as OlmoForCausalLM,
    OlmoForSequenceClassification as OlmoForSequenceClassification,
    OlmoModel as OlmoModel,
)
from torchgguf.models.architectures.olmo2 import (
    Olmo2Config as Olmo2Config,
    Olmo2ForCausalLM as Olmo2ForCausalLM,
    Olmo2ForSequenceClassification as Olmo2ForSequenceClassification,
    Olmo2Model as Olmo2Model,
)
from torchgguf.models.architectures.olmo3 import (
    Olmo3Config as Olmo3Config,
    Olmo3ForCausalLM as Olmo3ForCausalLM,
    Olmo3ForSequenceClassification as Olmo3ForSequenceClassification,
    Olmo3Model as Olmo3Model,
)
from torchgguf.models.architectures.olmoe import (
    OlmoeConfig as OlmoeConfig,
    OlmoeForCausalLM as OlmoeForCausalLM,
    OlmoeModel as OlmoeModel,
)
from torchgguf.models.architectures.orion import (
    OrionConfig as OrionConfig,
    OrionForCausalLM as OrionForCausalLM,
    OrionModel as OrionModel,
)
from torchgguf.models.architectures.paddleocr_vl_text import (
    PaddleOCRVLTextConfig as PaddleOCRVLTextConfig,
    PaddleOCRVLTextForCausalLM as PaddleOCRVLTextForCausalLM,
    PaddleOCRVLTextModel as PaddleOCRVLTextModel,
)
from torchgguf.models.architectures.pangu_embedded import (
    PanguEmbeddedConfig as PanguEmbeddedConfig,
    PanguEmbeddedForCausalLM as PanguEmbeddedForCausalLM,
    PanguEmbeddedModel as PanguEmbeddedModel,
)
from torchgguf.models.architectures.phi import (
    PhiConfig as PhiConfig,
    PhiForCausalLM as PhiForCausalLM,
    PhiForSequenceClassification as PhiForSequenceClassification,
    PhiForTokenClassification as PhiForTokenClassification,
    PhiModel as PhiModel,
)
from torchgguf.models.architectures.phi3 import (
    Phi3Config as Phi3Config,
    Phi3ForCausalLM as Phi3ForCausalLM,
    Phi3ForSequenceClassification as Phi3ForSequenceClassification,
    Phi3ForTokenClassification as Phi3ForTokenClassification,
    Phi3Model as Phi3Model,
)
from torchgguf.models.architectures.phimoe import (
    PhimoeConfig as PhimoeConfig,
    PhimoeForCausalLM as PhimoeForCausalLM,
    PhimoeForSequenceClassification as PhimoeForSequenceClassification,
    PhimoeModel as PhimoeModel,
)
from torchgguf.models.architectures.plamo import (
    PlamoConfig as PlamoConfig,
    PlamoForCausalLM as PlamoForCausalLM,
    PlamoModel as PlamoModel,
)
from torchgguf.models.architectures.qwen import (
    QwenConfig as QwenConfig,
    QwenForCausalLM as QwenForCausalLM,
    QwenModel as QwenModel,
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
from torchgguf.models.architectures.qwen2_vl_text import (
    Qwen2VLTextConfig as Qwen2VLTextConfig,
    Qwen2VLTextForCausalLM as Qwen2VLTextForCausalLM,
    Qwen2VLTextModel as Qwen2VLTextModel,
)
from torchgguf.models.architectures.qwen3 import (
    Qwen3Config as Qwen3Config,
    Qwen3ForCausalLM as Qwen3ForCausalLM,
    Qwen3ForQuestionAnswering as Qwen3ForQuestionAnswering,
    Qwen3ForSequenceClassification as Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification as Qwen3ForTokenClassification,
    Qwen3Model as Qwen3Model,
)
from torchgguf.models.architectures.qwen3_5_moe_text import (
    Qwen3_5MoeForCausalLM as Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig as Qwen3_5MoeTextConfig,
    Qwen3_5MoeTextModel as Qwen3_5MoeTextModel,
)
from torchgguf.models.architectures.qwen3_5_text import (
    Qwen3_5ForCausalLM as Qwen3_5ForCausalLM,
    Qwen3_5TextConfig as Qwen3_5TextConfig,
    Qwen3_5TextForSequenceClassification as Qwen3_5TextForSequenceClassification,
    Qwen3_5TextModel as Qwen3_5TextModel,
)
from torchgguf.models.architectures.qwen3_moe import (
    Qwen3MoeConfig as Qwen3MoeConfig,
    Qwen3MoeForCausalLM as Qwen3MoeForCausalLM,
    Qwen3MoeForQuestionAnswering as Qwen3MoeForQuestionAnswering,
    Qwen3MoeForSequenceClassification as Qwen3MoeForSequenceClassification,
    Qwen3MoeForTokenClassification as Qwen3MoeForTokenClassification,
    Qwen3MoeModel as Qwen3MoeModel,
)
from torchgguf.models.architectures.qwen3_next import (
    Qwen3NextConfig as Qwen3NextConfig,
    Qwen3NextForCausalLM as Qwen3NextForCausalLM,
    Qwen3NextForQuestionAnswering as Qwen3NextForQuestionAnswering,
    Qwen3NextForSequenceClassification as Qwen3NextForSequenceClassification,
    Qwen3NextForTokenClassification as Qwen3NextForTokenClassification,
    Qwen3NextModel as Qwen3NextModel,
)
from torchgguf.models.architectures.qwen3_vl_moe_text import (
    Qwen3VLMoeTextConfig as Qwen3VLMoeTextConfig,
    Qwen3VLMoeTextForCausalLM as Qwen3VLMoeTextForCausalLM,
    Qwen3VLMoeTextModel as Qwen3VLMoeTextModel,
)
from torchgguf.models.architectures.qwen3_vl_text import (
    Qwen3VLTextConfig as Qwen3VLTextConfig,
    Qwen3VLTextForCausalLM as Qwen3VLTextForCausalLM,
    Qwen3VLTextModel as Qwen3VLTextModel,
)
from torchgguf.models.architectures.refact import (
    RefactConfig as RefactConfig,
    RefactForCausalLM as RefactForCausalLM,
    RefactModel as RefactModel,
)
from torchgguf.models.architectures.rnd1 import (
    RND1Config as RND1Config,
    RND1ForCausalLM as RND1ForCausalLM,
    RND1Model as RND1Model,
)
from torchgguf.models.architectures.seed_oss import (
    SeedOssConfig as SeedOssConfig,
    SeedOssForCausalLM as SeedOssForCausalLM,
    SeedOssForQuestionAnswering as SeedOssForQuestionAnswering,
    SeedOssForSequenceClassification as SeedOssForSequenceClassification,
    SeedOssForTokenClassification as SeedOssForTokenClassification,
    SeedOssModel as SeedOssModel,
)
from torchgguf.models.architectures.smollm3 import (
    SmolLM3Config as SmolLM3Config,
    SmolLM3ForCausalLM as SmolLM3ForCausalLM,
    SmolLM3ForQuestionAnswering as SmolLM3ForQuestionAnswering,
    SmolLM3ForSequenceClassification as SmolLM3ForSequenceClassification,
    SmolLM3ForTokenClassification as SmolLM3ForTokenClassification,
    SmolLM3Model as SmolLM3Model,
)
from torchgguf.models.architectures.stablelm import (
    StableLmConfig as StableLmConfig,
    StableLmForCausalLM as StableLmForCausalLM,
    StableLmForSequenceClassification as StableLmForSequenceClassification,
    StableLmForTokenClassification as StableLmForTokenClassification,
    StableLmModel as StableLmModel,
)
from torchgguf.models.architectures.starcoder2 import (
    Starcoder2Config as Starcoder2Config,
    Starcoder2ForCausalLM as Starcoder2ForCausalLM,
    Starcoder2ForSequenceClassification as Starcoder2ForSequenceClassification,
    Starcoder2ForTokenClassification as Starcoder2ForTokenClassification,
    Starcoder2Model as Starcoder2Model,
)
from torchgguf.models.architectures.t5 import (
    T5Config as T5Config,
    T5EncoderModel as T5EncoderModel,
    T5ForConditionalGeneration as T5ForConditionalGeneration,
    T5Model as T5Model,
)
from torchgguf.models.architectures.umt5 import (
    UMT5Config as UMT5Config,
    UMT5EncoderModel as UMT5EncoderModel,
    UMT5ForConditionalGeneration as UMT5ForConditionalGeneration,
    UMT5Model as UMT5Model,
)
from torchgguf.models.architectures.xverse import (
    XverseConfig as XverseConfig,
    XverseForCausalLM as XverseForCausalLM,
    XverseModel as XverseModel,
)
from torchgguf.models.auto import (
    CONFIG_MAPPING as CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING as MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING as MODEL_FOR_QUESTION_ANSWERING_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING as MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING as MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING as MODEL_MAPPING,
    AutoConfig as AutoConfig,
    AutoModel as AutoModel,
    AutoModelForCausalLM as AutoModelForCausalLM,
    AutoModelForQuestionAnswering as AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM as AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification as AutoModelForSequenceClassification,
    AutoModelForTokenClassification as AutoModelForTokenClassification,
)
from torchgguf.models.blocks.outputs import (
    BaseModelOutput as BaseModelOutput,
    BaseModelOutputWithPast as BaseModelOutputWithPast,
    BaseModelOutputWithPastAndCrossAttentions as BaseModelOutputWithPastAndCrossAttentions,
    BaseModelOutputWithPooling as BaseModelOutputWithPooling,
    BaseModelOutputWithPoolingAndCrossAttentions as BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions as CausalLMOutputWithCrossAttentions,
    CausalLMOutputWithPast as CausalLMOutputWithPast,
    MoeCausalLMOutputWithPast as MoeCausalLMOutputWithPast,
    MoeModelOutputWithPast as MoeModelOutputWithPast,
    QuestionAnsweringModelOutput as QuestionAnsweringModelOutput,
    Seq2SeqLMOutput as Seq2SeqLMOutput,
    Seq2SeqModelOutput as Seq2SeqModelOutput,
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

from tokenizers import AddedToken as AddedToken

# Trains models of both packages. It is that of transformers, which must be installed.
from transformers import (
    DataCollatorForLanguageModeling as DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq as DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification as DataCollatorForTokenClassification,
    DataCollatorWithPadding as DataCollatorWithPadding,
    EarlyStoppingCallback as EarlyStoppingCallback,
    EvalPrediction as EvalPrediction,
    HfArgumentParser as HfArgumentParser,
    IntervalStrategy as IntervalStrategy,
    SchedulerType as SchedulerType,
    Trainer as Trainer,
    TrainerCallback as TrainerCallback,
    TrainerControl as TrainerControl,
    TrainerState as TrainerState,
    TrainingArguments as TrainingArguments,
    default_data_collator as default_data_collator,
    get_constant_schedule as get_constant_schedule,
    get_constant_schedule_with_warmup as get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup as get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup as get_linear_schedule_with_warmup,
    get_scheduler as get_scheduler,
)

from torchgguf import logging as logging
from torchgguf._version import __version__ as __version__
from torchgguf.container import GGUFError as GGUFError, open_gguf as open_gguf, write_gguf as write_gguf
from torchgguf.conversion import (
    convert_to_checkpoint as convert_to_checkpoint,
    convert_to_gguf as convert_to_gguf,
)
from torchgguf.generation import *
from torchgguf.models import *
from torchgguf.nn import (
    Cache as Cache,
    Conv1D as Conv1D,
    DynamicCache as DynamicCache,
    StaticCache as StaticCache,
)
from torchgguf.packing import (
    ImportanceMatrix as ImportanceMatrix,
    PackingReport as PackingReport,
    Quantization as Quantization,
    load_imatrix as load_imatrix,
)
from torchgguf.pipelines import (
    FeatureExtractionPipeline as FeatureExtractionPipeline,
    NerPipeline as NerPipeline,
    Pipeline as Pipeline,
    QuestionAnsweringPipeline as QuestionAnsweringPipeline,
    Text2TextGenerationPipeline as Text2TextGenerationPipeline,
    TextClassificationPipeline as TextClassificationPipeline,
    TextGenerationPipeline as TextGenerationPipeline,
    TokenClassificationPipeline as TokenClassificationPipeline,
    pipeline as pipeline,
)
from torchgguf.seeding import set_seed as set_seed
from torchgguf.tokenization import *

from torchgguf.container import GGUFError as GGUFError, open_gguf as open_gguf, write_gguf as write_gguf
from torchgguf.conversion import (
    convert_to_checkpoint as convert_to_checkpoint,
    convert_to_gguf as convert_to_gguf,
)
from torchgguf.generation import (
    GenerateBeamDecoderOnlyOutput as GenerateBeamDecoderOnlyOutput,
    GenerateDecoderOnlyOutput as GenerateDecoderOnlyOutput,
    GenerationConfig as GenerationConfig,
    TextIteratorStreamer as TextIteratorStreamer,
    TextStreamer as TextStreamer,
)
from torchgguf.models import *
from torchgguf.nn import DynamicCache as DynamicCache, StaticCache as StaticCache
from torchgguf.packing import (
    ImportanceMatrix as ImportanceMatrix,
    PackingReport as PackingReport,
    Quantization as Quantization,
    load_imatrix as load_imatrix,
)
from torchgguf.pipelines import Pipeline as Pipeline, pipeline as pipeline
from torchgguf.tokenization import *

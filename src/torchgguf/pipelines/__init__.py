"""Pipelines: one for each task, with text as input and text or labels as output."""

from torchgguf.pipelines.base import Pipeline
from torchgguf.pipelines.factory import TASKS, pipeline
from torchgguf.pipelines.feature_extraction import FeatureExtractionPipeline
from torchgguf.pipelines.question_answering import QuestionAnsweringPipeline
from torchgguf.pipelines.text2text_generation import Text2TextGenerationPipeline
from torchgguf.pipelines.text_classification import TextClassificationPipeline
from torchgguf.pipelines.text_generation import TextGenerationPipeline
from torchgguf.pipelines.token_classification import NerPipeline, TokenClassificationPipeline

__all__ = [
    "TASKS",
    "FeatureExtractionPipeline",
    "NerPipeline",
    "Pipeline",
    "QuestionAnsweringPipeline",
    "Text2TextGenerationPipeline",
    "TextClassificationPipeline",
    "TextGenerationPipeline",
    "TokenClassificationPipeline",
    "pipeline",
]

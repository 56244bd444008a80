"""Training data: from records in files to tokens with what of them is learnt."""

from torchgguf.training.data.dataset import Item, TrainingData, load_training_data
from torchgguf.training.data.problems import Problems
from torchgguf.training.data.records import DataSource
from torchgguf.training.data.samples import TrainingSample

__all__ = ["DataSource", "Item", "Problems", "TrainingData", "TrainingSample", "load_training_data"]

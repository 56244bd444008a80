"""Every model class that the Auto classes know."""

from tests.models.without_peer import CASES
from torchgguf.models import registry

ARCHITECTURES = [found for kind in registry.MODEL_TYPES for found in registry.architectures_of_type(kind)]
CLASSES = [model_class for architecture in ARCHITECTURES for model_class in architecture.classes.values()]
# Model types that transformers lacks: their checkpoints contain code of their own instead.
WITHOUT_PEER = {model_type for model_type, _ in CASES.values()}
OF_TRANSFORMERS = [each for each in CLASSES if each.architecture.config_class.model_type not in WITHOUT_PEER]

"""From what is at a place to a model with all its weights."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from torchgguf.container import GGUFError
from torchgguf.models import registry
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.model import Model
from torchgguf.models.io.checkpoint import Checkpoint, CheckpointError
from torchgguf.models.io.checkpoint_loading import load_checkpoint
from torchgguf.models.io.devices import spread
from torchgguf.models.io.loading import load_model
from torchgguf.models.io.opening import open_source, read_config
from torchgguf.models.io.options import LoadOptions


def load_pretrained(
    choose: Callable[[Architecture], type[Model]],
    place: str | PathLike[str],
    gguf_file: str | None,
    given: Mapping[str, Any],
) -> Any:
    """Load the model at a place, as the class that is chosen among those of its architecture.

    Arguments and errors are those of `PreTrainedModel.from_pretrained`.
    """
    options = LoadOptions.of(given)
    model: Model
    with open_source(place, gguf_file, **options.hub) as source:
        if isinstance(source, Checkpoint):
            config = read_config(source, options)
            model_class = choose(registry.architecture_of_type(config.model_type))
            model = load_checkpoint(model_class, source, config, options)
        else:
            try:
                model_class = choose(registry.architecture_of_file(source))
            except CheckpointError as error:
                raise GGUFError(str(error)) from None
            model = load_model(model_class, source, options)
    spread(model, options.device_map, options.max_memory, options.offload_folder)
    return model

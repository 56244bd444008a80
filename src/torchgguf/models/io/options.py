"""Sort the options of `from_pretrained`: those of loading, of fetching, and fields of the config."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any, Self

import torch

from torchgguf.compat import NeutralOptions, rename_option, split_options
from torchgguf.generation import GenerationConfig
from torchgguf.hub import HubOptions
from torchgguf.models.core.config import Config
from torchgguf.models.io.devices import DeviceMap, single_device
from torchgguf.models.quantizers.protocol import QuantizationConfig

# Options of transformers that are not here, with the values that ask for nothing else than what is done.
_NEUTRAL: NeutralOptions = {
    "adapter_kwargs": (None,),
    "code_revision": (None,),
    "device_mesh": (None,),
    "distributed_config": (None,),
    "experts_implementation": (None,),
    "from_flax": (None, False),
    "from_tf": (None, False),
    "fusion_config": (None,),
    "kernel_config": (None,),
    "key_mapping": (None,),
    "load_in_4bit": (None, False),
    "load_in_8bit": (None, False),
    "low_cpu_mem_usage": (None, True, False),
    "offload_buffers": (None, False),
    "offload_state_dict": (None, True, False),
    "output_loading_info": (None, False),
    "proxies": (None,),
    "state_dict": (None,),
    "subfolder": (None, ""),
    "tp_plan": (None,),
    "tp_size": (None,),
    "trust_remote_code": (None, True, False),
    "use_kernels": (None, False),
    "variant": (None,),
    "weights_only": (None, True),
}

_KINDS: dict[str, Any] = {
    "config": Config | str | PathLike,
    "generation_config": GenerationConfig,
    "quantization_config": QuantizationConfig,
}


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """The options of `PreTrainedModel.from_pretrained`, which explains each.

    Attributes:
        hub: the options of fetching.
        changes: fields to set in the config.
    """

    config: Config | str | PathLike[str] | None = None
    dequantize: bool = False
    dtype: torch.dtype | str | None = None
    attn_implementation: str | None = None
    device_map: DeviceMap = None
    max_memory: dict[int | str, int | str] | None = None
    offload_folder: str | PathLike[str] | None = None
    quantization_config: QuantizationConfig | None = None
    generation_config: GenerationConfig | None = None
    ignore_mismatched_sizes: bool = False
    use_safetensors: bool | None = None
    mmap: bool = True
    ignore_metadata: Collection[str] = ()
    hub: HubOptions = field(default_factory=HubOptions)
    changes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Sort the arguments of `from_pretrained`.

        Raises:
            ValueError: the value of an option is unsupported, or contradicts another option.
            TypeError: an option is of a wrong type, such as a config of transformers.
        """
        names = {option.name for option in fields(cls)} - {"hub", "changes"}
        renamed = dict(options)
        rename_option(renamed, "torch_dtype", "dtype")
        if renamed.pop("disable_mmap", None):  # transformers' name
            renamed["mmap"] = False
        hub: Any
        hub, own, changes = split_options(renamed, _NEUTRAL, HubOptions.__annotations__, names)
        for name, kinds in _KINDS.items():
            if not isinstance(value := own.get(name), kinds | None):
                kind = f"{type(value).__module__}.{type(value).__name__}"
                raise TypeError(f"{name}= must be a class of torchgguf, got {kind}")
        if isinstance(own.get("ignore_metadata"), str):
            raise TypeError(f"ignore_metadata= must be a list of keys, got {own['ignore_metadata']!r}")
        if own.get("use_safetensors") is False:
            raise ValueError(
                "use_safetensors=False is unsupported: .safetensors files are loaded before .bin files"
            )
        if own.get("dequantize") and own.get("quantization_config") is not None:
            raise ValueError("dequantize=True contradicts quantization_config=")
        return cls(**own, hub=hub, changes=changes)

    def without_checkpoint(self) -> None:
        """Refuse options that do not apply to GGUF files.

        Raises:
            ValueError: such an option is set; the message names it.
        """
        for name in ("config", "quantization_config", "ignore_mismatched_sizes", "use_safetensors"):
            if getattr(self, name):
                raise ValueError(f"{name}= is for Hugging Face checkpoints, but this is a GGUF file")

    @property
    def device(self) -> torch.device:
        """The device that weights are loaded onto. A device map may move them from the CPU afterwards."""
        return single_device(self.device_map) or torch.device("cpu")

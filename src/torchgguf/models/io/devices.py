"""Place the parts of a model on devices or on the disk, as `device_map` asks."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import torch
from torch import Tensor, nn

Device: TypeAlias = str | int | torch.device
# One device, the name of a strategy, or the device of each module by its name ("" is the whole model).
DeviceMap: TypeAlias = Device | Mapping[str, Device] | None
# Loads all parameters of a layer, by its name, for the length of a block.
Layers: TypeAlias = Callable[[str], AbstractContextManager[nn.Module]]

# How accelerate fills several devices: as evenly as it can, or one after the other.
_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
# The share of a device for weights; the rest is for activations and the cache.
_SHARE = 0.9


def single_device(device_map: DeviceMap) -> torch.device | None:
    """Return the only device in a map, or None if there are several or a strategy finds them.

    Raises:
        ValueError: a device is invalid, or this machine lacks it.
    """
    if device_map is None or (isinstance(device_map, str) and device_map in _STRATEGIES):
        return None
    places = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    devices = {None if place == "disk" else _device(place) for place in places}
    return devices.pop() if len(devices) == 1 else None


def _device(place: Device) -> torch.device:
    wanted = (
        "it must be a device, a dict of devices or 'disk' by the names of modules, or one of "
        f"{', '.join(_STRATEGIES)}"
    )
    try:
        return available_device(place, "device_map")
    except ValueError as error:
        raise ValueError(f"{error}; {wanted}") from None


def available_device(place: Device, option: str = "device") -> torch.device:
    """Return a device of this machine.

    Args:
        place: the device or its name.
        option: named in the error.

    Raises:
        ValueError: the device is invalid, or this machine lacks it.
    """
    try:
        device = torch.device(place)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{option}={place!r} is not available ({reason})") from None
    if device.type == "meta":
        raise ValueError(f"{option}={place!r} is invalid: it stores no values")
    return device


def spread(
    model: nn.Module,
    device_map: DeviceMap,
    max_memory: dict[int | str, int | str] | None = None,
    offload_folder: str | PathLike[str] | None = None,
) -> None:
    """Place the parts of a model as a map asks, and set `hf_device_map`, as transformers does.

    A single device needs a plain move. Otherwise accelerate loads weights from the disk, or from the CPU onto
    an accelerator, for as long as they are used.

    Args:
        model: with all its parameters; packed layers count by their bytes.
        device_map: as in `PreTrainedModel.from_pretrained`; None changes nothing.
        max_memory: bytes, or texts such as `"10GB"`, by device; for the strategies.
        offload_folder: for weights on the disk. They are in a folder of their own, which is deleted together
            with the model.

    Raises:
        ImportError: accelerate is needed, and is not installed.
        ValueError: a device or a module is unknown, parameters are without a device, or `offload_folder` is
            missing.
    """
    if device_map is None:
        return
    places = _places(model, device_map, max_memory)
    if (device := single_device(places)) is not None:
        model.to(device)
    else:
        _dispatch(model, places, offload_folder)
    vars(model)["hf_device_map"] = places


def _places(
    model: nn.Module, device_map: DeviceMap, max_memory: dict[int | str, int | str] | None
) -> dict[str, Device]:
    if isinstance(device_map, Mapping):
        modules = {name for name, _ in model.named_modules()}
        if unknown := [name for name in device_map if name not in modules]:
            raise ValueError(f"device_map: there is no module {unknown[0]!r} in {type(model).__name__}")
        return dict(device_map)
    if not (isinstance(device_map, str) and device_map in _STRATEGIES):
        assert device_map is not None
        return {"": device_map}
    if max_memory is None:
        if not torch.accelerator.is_available():
            return {"": "cpu"}
        if torch.cuda.is_available() and torch.cuda.device_count() == 1:
            size = sum(parameter.nbytes for parameter in model.parameters())
            if size <= _SHARE * torch.cuda.mem_get_info(0)[0]:
                return {"": 0}
    utils = _accelerate(device_map).utils
    # Items of the models' lists are layers with residual connections, which must be on one device each.
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    whole = sorted({type(layer).__name__ for layers in lists for layer in layers})
    memory = utils.get_max_memory(max_memory)
    if device_map != "sequential":
        low_zero = device_map == "balanced_low_0"
        memory = utils.get_balanced_memory(model, max_memory, whole, low_zero=low_zero)
    return dict(utils.infer_auto_device_map(model, memory, whole))


def _dispatch(
    model: nn.Module, places: dict[str, Device], offload_folder: str | PathLike[str] | None
) -> None:
    accelerate, folder = _accelerate(places), None
    if left := [name for name, place in places.items() if place == "disk"]:
        if offload_folder is None:
            raise ValueError(f"device_map stores {left[0] or 'the model'} on the disk: set offload_folder=")
        # A folder of its own: accelerate would load the files of another model as this one's.
        Path(offload_folder).mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="torchgguf-", dir=offload_folder)
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        if "" in left:  # for which accelerate finds no module
            places = _spelled_out(model, places)
    accelerate.dispatch_model(model, places, offload_dir=folder)


def _spelled_out(model: nn.Module, places: dict[str, Device]) -> dict[str, Device]:
    """Replace the place of the whole model by those of its layers, where these have no other place."""
    others = {name: place for name, place in places.items() if name}
    above = tuple(f"{name}." for name in others)
    layers = (
        name for name, layer in model.named_modules() if any(True for _ in layer.parameters(recurse=False))
    )
    rest = (name for name in layers if name not in others and not name.startswith(above))
    return others | dict.fromkeys(rest, places[""])


@contextmanager
def at_hand(model: nn.Module, path: str) -> Iterator[nn.Module]:
    """Load all parameters of a layer, also those on the disk, for the length of a block."""
    layer = model.get_submodule(path)
    away = {name: value for name, value in layer.named_parameters(recurse=False) if value.is_meta}
    for name in away:
        layer.register_parameter(name, nn.Parameter(_left(model, f"{path}.{name}"), requires_grad=False))
    try:
        yield layer
    finally:
        for name, value in away.items():
            layer.register_parameter(name, value)


def _left(model: nn.Module, name: str) -> Tensor:
    """Return a parameter from the place where accelerate's hook on its module, or on one above, loads it."""
    parts = name.split(".")
    for i in range(len(parts)):
        hook = getattr(model.get_submodule(".".join(parts[:i])), "_hf_hook", None)
        for each in getattr(hook, "hooks", [hook]):
            if (weights := getattr(each, "weights_map", None)) is not None:
                found: Tensor = weights[".".join(parts[i:])]
                return found
    raise ValueError(f"{name} is on the meta device, which stores no values")


def _accelerate(wish: object) -> ModuleType:
    try:
        return import_module("accelerate")
    except ImportError:
        raise ImportError(f"device_map={wish!r} needs accelerate: pip install accelerate") from None

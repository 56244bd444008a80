"""Decode steps without Python: a step of the model is recorded twice, checked, and from then on replayed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from torchgguf.generation.fingerprint import Fingerprint, fingerprint, obstacle
from torchgguf.kernels.plan import (
    BoundProgram,
    Executor,
    NativeExecutor,
    PlanError,
    Program,
    Recorder,
    has_native_executor,
)
from torchgguf.nn.cache import Cache, FixedPlaces, capacity_for

_logger = getLogger(__name__)

# A recording takes the time of a few steps.
FEWEST_STEPS = 16
# Highest difference of logits from those of the ordinary step, of the largest one: products round alike, sums
# in another order.
_TOLERANCE = 1e-2

# Programs that are kept of a model: for so many sizes of batches and of caches.
_MOST_PROGRAMS = 16

Inputs = dict[str, Tensor]
Key = tuple[Any, ...]


class RecordedStep:
    """A program bound to the places of a cache.

    Args:
        program: the program.
        key: what it was recorded for.
        places: of the cache's states.
        inputs: tensors like those that the program will read.
        make_executor: what runs a program.
    """

    def __init__(
        self,
        program: Program,
        key: Key,
        places: FixedPlaces,
        inputs: Inputs,
        make_executor: Callable[[BoundProgram], Executor],
    ) -> None:
        self.key = key
        self.places = places
        self._inputs = _buffers(inputs)
        bound = BoundProgram(program, {**places.tensors, **self._inputs})
        self._output = bound.output
        self._executor = make_executor(bound)

    def run(self, inputs: Inputs) -> Tensor:
        """Read the new token; return the scores `(B, vocabulary)`, float32, of the one after it."""
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor)
        self._executor.run()
        return _scores(self._output)


def _scores(logits: Tensor) -> Tensor:
    return logits[:, -1].to(torch.float32, copy=True)


@dataclass
class _Known:
    """What is known of the steps of a model while it has a certain fingerprint.

    Attributes:
        programs: by what they were recorded for; or why there is none.
        steps: by the cache.
    """

    fingerprint: Fingerprint
    programs: dict[Key, Program | str] = field(default_factory=dict)
    steps: WeakKeyDictionary[Cache, RecordedStep] = field(default_factory=WeakKeyDictionary)

    def add(self, key: Key, program: Program | str) -> None:
        """Keep a program, or why there is none, in place of the oldest one if there are too many."""
        if len(self.programs) >= _MOST_PROGRAMS:
            self.programs.pop(next(iter(self.programs)), None)
        self.programs[key] = program


_MODELS: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
_lock = threading.Lock()


def _known_of(model: Any, now: Fingerprint) -> _Known:
    with _lock:
        known = _MODELS.get(model)
        if known is None or known.fingerprint != now:
            known = _MODELS[model] = _Known(now)
        return known


class RecordedSteps:
    """The decode steps of one generation, replayed where that is possible.

    Args:
        model: the model.
        length: the highest number of positions that the text may have.
        steps: the highest number of steps.
        make_executor: what runs a program.

    Attributes:
        reason: why steps run in Python; None: they do not, or it is not decided yet.
    """

    def __init__(
        self,
        model: Any,
        length: int,
        steps: int,
        make_executor: Callable[[BoundProgram], Executor] = NativeExecutor,
    ) -> None:
        self.reason: str | None = None
        self._model = model
        self._length = length
        self._steps = steps
        self._make_executor = make_executor
        self._known: _Known
        self._places: FixedPlaces | None = None
        self._step: RecordedStep | None = None
        self._first: Program | None = None  # of two recordings
        self._inputs: Inputs = {}  # of both
        if make_executor is NativeExecutor and not has_native_executor():
            self._refuse("the native part was not built")
        elif (found := obstacle(model)) is not None:
            self._refuse(found)
        elif getattr(model, "dtype", None) is not torch.float32:
            self._refuse("activations are not float32")
        elif isinstance(now := fingerprint(model), str):
            self._refuse(now)
        else:
            self._known = _known_of(model, now)

    def _refuse(self, reason: str) -> None:
        self.reason = reason
        _logger.info("decode steps run in Python: %s", reason)

    def logits(self, cache: Cache, length: int, make_inputs: Callable[[int], Inputs]) -> Tensor | None:
        """Read the next token.

        Args:
            cache: it contains all tokens before it.
            length: the number of positions in the cache.
            make_inputs: given the capacity of the cache, returns the arguments of the model.

        Returns:
            The scores `(B, vocabulary)`, float32, and the cache contains the token; or None, and nothing has
            changed: the step must run in Python.
        """
        if self.reason is not None:
            return None
        places = self._places
        if places is None or not places.follow(length):
            places = self._move(cache, length)
            if places is None:
                return None
        inputs = make_inputs(places.capacity)
        if self._step is None:
            self._step = self._find(cache, places, inputs)
        if self._step is not None:
            logits: Tensor | None = self._step.run(inputs)
        else:
            logits = None if self.reason is not None else self._record(cache, places, inputs)
        if logits is not None:
            places.advance(length + 1)
        return logits

    def _move(self, cache: Cache, length: int) -> FixedPlaces | None:
        """Return places that the states of the cache are in now, with room for the next token."""
        self._step, self._first, self._places = None, None, None
        step = self._known.steps.get(cache)
        if step is not None and step.places.belongs_to(cache) and step.places.follow(length):
            self._places = step.places
            return self._places
        try:
            self._places = FixedPlaces(cache, capacity_for(length, self._length))
        except NotImplementedError as error:
            self._refuse(str(error))
        return self._places

    def _find(self, cache: Cache, places: FixedPlaces, inputs: Inputs) -> RecordedStep | None:
        """Return a step that need not be recorded first, or None."""
        if self._first is not None:
            return None
        key = _key(places, inputs)
        step = self._known.steps.get(cache)
        if step is not None and step.places is places and step.key == key:
            return step
        program = self._known.programs.get(key)
        if isinstance(program, str):
            self._refuse(program)
        elif program is None and self._steps < FEWEST_STEPS:
            self._refuse(f"there are fewer than {FEWEST_STEPS}")
        elif program is not None:
            return self._bind(program, cache, key, places, inputs)
        return None

    def _bind(
        self, program: Program, cache: Cache, key: Key, places: FixedPlaces, inputs: Inputs
    ) -> RecordedStep:
        step = RecordedStep(program, key, places, inputs, self._make_executor)
        self._known.steps[cache] = step
        return step

    def _record(self, cache: Cache, places: FixedPlaces, inputs: Inputs) -> Tensor | None:
        """Run a step and record it; the second time, check what was recorded. Returns as `logits`."""
        before, twin = places.snapshot(), places.twin(cache)
        if self._first is None:
            self._inputs = _buffers(inputs)
        for name, tensor in inputs.items():
            self._inputs[name].copy_(tensor)
        recorder = Recorder()
        try:
            with torch.inference_mode(), recorder:
                output = self._model(**self._inputs, cache=twin, use_cache=True, logits_to_keep=1)
        except BaseException:
            places.restore(before)
            raise
        logits, key = _scores(output.logits), _key(places, inputs)
        try:
            program = recorder.program(output.logits)
            if self._first is None:
                self._first = program
                return logits
            if (found := self._first.difference(program)) is not None:
                raise PlanError(f"two steps differ in {found}")
            program.name({**places.tensors, **self._inputs})
            step = self._bind(program, cache, key, places, inputs)
            if not _repeats(step, before, inputs, logits):
                raise PlanError("a replayed step has other results")
        except PlanError as error:
            self._known.steps.pop(cache, None)
            self._known.add(key, str(error))
            self._refuse(str(error))
            return logits
        self._known.add(key, program)
        self._step, self._first = step, None
        return logits


def _key(places: FixedPlaces, inputs: Inputs) -> Key:
    """Return what a program depends on: shapes of all that it reads and writes beside parameters."""
    states = ((name, x.shape, x.stride(), x.dtype) for name, x in places.tensors.items())
    return (*states, *((name, x.shape, x.dtype) for name, x in inputs.items()))


def _buffers(inputs: Inputs) -> Inputs:
    """Return copies that lie in the same way whatever these are parts of."""
    return {name: x.clone(memory_format=torch.contiguous_format) for name, x in inputs.items()}


def _repeats(step: RecordedStep, before: list[Tensor], inputs: Inputs, logits: Tensor) -> bool:
    """Return whether a step does what the model did; the states are then as the model left them.

    Args:
        step: the step.
        before: the snapshot of the states before it.
        inputs: what the model read.
        logits: the model's.
    """
    after = step.places.snapshot()
    step.places.restore(before)
    pairs = [(step.run(inputs), logits), *zip(step.places.snapshot(), after, strict=True)]
    step.places.restore(after)
    return all(_close(one, two) for one, two in pairs)


def _close(one: Tensor, two: Tensor) -> bool:
    if not two.numel() or torch.equal(one, two):
        return True
    bound = _TOLERANCE * float(two.abs().max())
    return bool(((one - two).abs() <= bound).all())

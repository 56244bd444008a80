"""Training data: samples or pairs of samples, those that are held out, and what is wrong with the rest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
import torch

from torchgguf.tokenization import Tokenizer
from torchgguf.training.data.formats import Format, FormatError, format_of
from torchgguf.training.data.problems import Problems
from torchgguf.training.data.records import DataRecord, DataSource, read_records
from torchgguf.training.data.samples import ExampleEncoder, TrainingSample, split_sample


@dataclass(frozen=True, slots=True)
class Item:
    """What is trained together: one sample, or a preferred one and a rejected one.

    Attributes:
        samples: one or two.
        place: of the record that it came from.
        reference: log-probabilities of the samples by the model before training, for pairs.
    """

    samples: tuple[TrainingSample, ...]
    place: str
    reference: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        """The number of tokens."""
        return sum(map(len, self.samples))

    @property
    def trained(self) -> int:
        """The number of tokens that are learnt."""
        return sum(sample.trained for sample in self.samples)


@dataclass(frozen=True)
class TrainingData:
    """Data in the form in which a model is trained on them.

    Attributes:
        items: to train on.
        held_out: to measure the loss on.
        is_preference: whether items are pairs.
        problems: what is wrong with records.
    """

    items: tuple[Item, ...]
    held_out: tuple[Item, ...] = ()
    is_preference: bool = False
    problems: Problems = field(default_factory=Problems)

    @property
    def fingerprint(self) -> str:
        """A hash of all tokens and labels, in their order."""
        digest = sha256()
        for part in (self.items, self.held_out):
            digest.update(f"{len(part)} {self.is_preference}".encode())
            for item in part:
                for sample in item.samples:
                    digest.update(np.array([sample.input_ids, sample.labels], dtype=np.int64).tobytes())
        return digest.hexdigest()

    def with_references(self, references: Sequence[tuple[float, ...]]) -> "TrainingData":
        """Return the same data with what the model before training says to each item, held-out ones last."""
        both = [replace(i, reference=r) for i, r in zip(self.everything(), references, strict=True)]
        cut = len(self.items)
        return replace(self, items=tuple(both[:cut]), held_out=tuple(both[cut:]))

    def everything(self) -> tuple[Item, ...]:
        """Return all items, held-out ones last."""
        return (*self.items, *self.held_out)


def load_training_data(
    source: DataSource,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    held_out: DataSource | float = 0.0,
    on_prompts: bool = False,
    seed: int = 0,
) -> TrainingData:
    """Read data, and encode them as the model reads them.

    Formats are told by the fields of records: `messages` (and `tools`), `prompt` and `completion`,
    `chosen` and `rejected` (and `prompt`), `instruction` and `output`, `conversations`, or `text`.

    Args:
        source: a file, a list of files, or records (see `read_records`).
        tokenizer: the model's, with its chat template.
        max_length: the largest number of tokens of a sample. Longer ones are cut, longer texts are split.
        held_out: data to measure the loss on; or the share of `source` to hold out for it.
        on_prompts: whether prompts are learnt as well as answers.
        seed: chooses the records that are held out.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no record is usable, or records of pairs and others are mixed.
    """
    problems = Problems()
    reader = _Reader(ExampleEncoder(tokenizer, on_prompts), max_length, problems)
    items = reader.read(read_records(source, problems))
    if not items:
        reasons = "; ".join(problems.lines()) or "there are no records"
        raise ValueError(f"the training data have no usable record: {reasons}")
    if isinstance(held_out, float | int):
        items, others = _split(items, held_out, seed)
    else:
        apart = Problems()
        others = replace(reader, problems=apart).read(read_records(held_out, apart))
        for what, places in apart.found.items():
            for place in places:
                problems.add(f"held-out {place}", what)
    return TrainingData(tuple(items), tuple(others), reader.is_preference, problems)


@dataclass
class _Reader:
    """Makes items of records.

    Attributes:
        encoder: encodes examples.
        max_length: as in `load_training_data`.
        problems: receives what is wrong.
        is_preference: whether records are pairs; None before the first.
    """

    encoder: ExampleEncoder
    max_length: int
    problems: Problems
    format: Format | None = None

    @property
    def is_preference(self) -> bool:
        """Whether records are pairs."""
        return self.format is not None and self.format.is_preference

    def read(self, records: Iterable[DataRecord]) -> list[Item]:
        """Return the items of all records; those with problems are left out."""
        items: list[Item] = []
        for record in records:
            try:
                items += self._items(record)
            except FormatError as error:
                self.problems.add(record.place, str(error))
        return items

    def _items(self, record: DataRecord) -> list[Item]:
        format = format_of(record.fields)
        if self.format is None:
            self.format = format
        if format.is_preference is not self.is_preference:
            raise ValueError(
                f"{record.place} is of the format {format.name!r}, others of {self.format.name!r}: "
                "pairs and other records cannot be mixed; train on one after the other"
            )
        examples = format.parse(record.fields)
        samples = []
        for example in examples:
            sample, problem = self.encoder.encode(example)
            if problem is not None:
                self.problems.add(record.place, problem)
            if len(sample) > self.max_length:
                if getattr(example, "splits", False):
                    return [Item((part,), record.place) for part in split_sample(sample, self.max_length)]
                sample = self._cut(sample, record.place)
            if not sample.trained:
                raise FormatError("has no token to learn; left out")
            samples.append(sample)
        if len(samples) == 2 and samples[0] == samples[1]:
            raise FormatError("chosen and rejected are the same; left out")
        return [Item(tuple(samples), record.place)]

    def _cut(self, sample: TrainingSample, place: str) -> TrainingSample:
        cut = sample.cut(0, self.max_length)
        if not cut.trained:
            raise FormatError(
                f"is longer than {self.max_length} tokens, and its answer begins later; left out"
            )
        self.problems.add(place, f"is longer than {self.max_length} tokens; its end is cut off")
        return cut


def _split(items: list[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Return items to train on, and those of a share of the records to hold out, in their order.

    Parts of one record stay together.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of held-out data must be at least 0 and less than 1, got {share}")
    places = list(dict.fromkeys(item.place for item in items))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    chosen = {places[i] for i in order[: int(len(places) * share)].tolist()}
    return [i for i in items if i.place not in chosen], [i for i in items if i.place in chosen]

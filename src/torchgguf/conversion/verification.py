"""A file compared with what it was made from: tensor by tensor, and by what the models say to a text."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgguf import kernels
from torchgguf.container import GGUFError, TensorSource, TensorType, open_gguf
from torchgguf.container.tensor_types import PLAIN
from torchgguf.container.writer import Progress
from torchgguf.models import AutoModelForCausalLM, registry
from torchgguf.quants import quant_type
from torchgguf.tokenization import AutoTokenizer, TokenizerError

_SLAB = 1 << 21  # weights that are unpacked at a time: 16 MB in float64
_MOST_TOKENS = 256

TEXT = """\
The lighthouse keeper wrote the same four things down every evening: the hour the lamp was lit, the \
direction of the wind, the height of the water at the steps, and the names of the ships that passed. On \
the third of November there were seven ships and a storm from the north-west. "By midnight," he noted, \
"the waves came over the wall, and the boat was gone." His daughter, who was eleven, learned to read \
from these pages. She found out that water is highest about every twelve and a half hours, that storms \
seldom last longer than three days, and that her father could not spell "Mediterranean".

Years later she studied mathematics, and used his notes as an example. If the height of the tide is \
measured n times, the error of the mean falls as one over the square root of n: with 3650 evenings it is \
about 1.7% of that of one evening. Her first program was short:

def mean(heights):
    total = 0.0
    for height in heights:
        total += height
    return total / len(heights)

It printed 2.41 metres. What does a list of numbers know about the sea? Less than the man who wrote it \
down, she said, but it does not forget.
"""


class TensorComparison(NamedTuple):
    """A tensor of the new file beside the one that it was made from.

    Attributes:
        name: of both.
        source_type: what it was.
        type: what it is.
        error: the root of the mean square error, over that of the mean square of what it was.
        copied: it has the type that it had, and the same bytes.
    """

    name: str
    source_type: TensorType
    type: TensorType
    error: float
    copied: bool


class LogitsComparison(NamedTuple):
    """What two models say to the same text.

    Attributes:
        tokens: how many were read.
        kl_divergence: of the new model's probabilities from the source's, mean over the tokens, in nats.
        same_top: how often both find the same token the most likely, 0 to 1.
        source_perplexity: of the text, to the source.
        perplexity: of the text, to the new model.
    """

    tokens: int
    kl_divergence: float
    same_top: float
    source_perplexity: float
    perplexity: float


@dataclass(frozen=True)
class Verification:
    """How a file compares with what it was made from.

    Attributes:
        tensors: those that both have in the same shape.
        logits: what the models say; or why that was not compared.
        problems: what is wrong, a line each. None if the file is as it should be.
    """

    tensors: tuple[TensorComparison, ...]
    logits: LogitsComparison | str
    problems: tuple[str, ...]

    @property
    def worst(self) -> TensorComparison | None:
        """The tensor with the largest error; None if there is none with any."""
        worst = max(self.tensors, key=lambda tensor: tensor.error, default=None)
        return worst if worst is not None and worst.error > 0 else None


def verify(
    path: str | PathLike[str],
    sources: Mapping[str, TensorSource],
    load_source: Callable[[], Any] | None = None,
    *,
    text: str = TEXT,
    progress: Progress | None = None,
) -> Verification:
    """Open a file that has been written, and compare it with its source.

    Args:
        path: the file; of a split model, any of its files.
        sources: the tensors that it was made from, by the names that they have in it.
        load_source: returns the model that it was made from. Without it, and where there is no model for the
            file's architecture, no tokenizer, or too little memory for the larger of both, only tensors are
            compared, and `Verification.logits` says why.
        text: what both models are to read.
        progress: told `(done, total)` bytes of the file's tensors as they are compared.

    Raises:
        GGUFError: the file cannot be opened.
    """
    problems: list[str] = []
    tensors = tuple(_compare_tensors(path, sources, problems, progress))
    outcome: LogitsComparison | str = "there is no model to compare with"
    if load_source is not None:
        nbytes = sum(source.nbytes for source in sources.values())
        outcome = _compare_models(Path(path), load_source, nbytes, text, problems)
    return Verification(tensors, outcome, tuple(problems))


def verify_requantized(
    path: str | PathLike[str], source: str | PathLike[str], *, progress: Progress | None = None
) -> Verification:
    """Compare a file with the one whose types it has other ones for: see `verify`."""
    with open_gguf(source) as file:
        tensors = file.sources(passing=True)
        return verify(path, tensors, lambda: AutoModelForCausalLM.from_pretrained(source), progress=progress)


def _compare_tensors(
    path: str | PathLike[str],
    sources: Mapping[str, TensorSource],
    problems: list[str],
    progress: Progress | None,
) -> list[TensorComparison]:
    compared = []
    with open_gguf(path) as file:
        total, done = sum(info.nbytes for info in file.tensors.values()), 0
        new = file.sources(passing=True)
        problems += [f"tensor {name!r} is missing" for name in sources if name not in new]
        problems += [f"tensor {name!r} is in no source" for name in new if name not in sources]
        for name, source in new.items():
            if name in sources and source.shape != sources[name].shape:
                problems.append(f"tensor {name!r} has shape {source.shape}, its source {sources[name].shape}")
            elif name in sources:
                compared.append(_compare(name, sources[name], source, problems))
            done += source.nbytes
            if progress is not None:
                progress(done, total)
    return compared


def _compare(name: str, source: TensorSource, new: TensorSource, problems: list[str]) -> TensorComparison:
    old_rows, new_rows = source.load_checked().detach(), new.load_checked()
    if source.type == new.type:
        same = torch.equal(old_rows.contiguous().view(torch.uint8), new_rows.contiguous().view(torch.uint8))
        if same:
            return TensorComparison(name, source.type, new.type, 0.0, copied=True)
        problems.append(f"tensor {name!r} is {new.type.name} as its source, but not the same")
    error, finite = _relative_error(old_rows, source.type, new_rows, new.type)
    if not finite:
        problems.append(f"tensor {name!r} has weights that are no finite numbers")
    elif error > 1:
        problems.append(f"tensor {name!r} has errors larger than its weights: {error:.3g} times")
    return TensorComparison(name, source.type, new.type, error, copied=False)


def _relative_error(
    old: Tensor, old_type: TensorType, new: Tensor, new_type: TensorType
) -> tuple[float, bool]:
    """The error as in `TensorComparison`, and whether all new weights are finite numbers."""
    error = norm = 0.0
    finite = True
    rows = [tensor.reshape(-1, *tensor.shape[-1:]) for tensor in (old, new)]
    step = max(_SLAB // max(rows[0].shape[-1], 1), 1)
    for old_slab, new_slab in zip(*(tensor.split(step) for tensor in rows), strict=True):
        # In float32 squares might overflow, or vanish.
        was, now = _numbers(old_slab, old_type).double(), _numbers(new_slab, new_type).double()
        finite = finite and bool(now.isfinite().all())
        error += float((now - was).square_().sum())
        norm += float(was.square_().sum())
    return math.sqrt(error / norm) if norm > 0 else math.inf if error > 0 else 0.0, finite


def _numbers(rows: Tensor, tensor_type: TensorType) -> Tensor:
    return rows.float() if tensor_type in PLAIN else kernels.dequantize(rows, quant_type(tensor_type))


def _compare_models(
    path: Path, load_source: Callable[[], Any], source_nbytes: int, text: str, problems: list[str]
) -> LogitsComparison | str:
    """Compare what the models say to a text; or tell why that cannot be."""
    with open_gguf(path) as file:
        try:
            registry.architecture_of_file(file)
        except GGUFError as error:
            return str(error)
        needed, available = max(source_nbytes, file.size), _available_memory()
    if needed > available:
        return f"the larger model takes {needed:,} bytes, and {available:,.0f} are free"
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        expected, tokens = _log_probabilities(load_source(), tokenizer(text)["input_ids"])
    except (GGUFError, TokenizerError, ValueError) as error:
        return str(error)
    if not expected.isfinite().all():
        return "the source's answers are no finite numbers"
    gc.collect()  # the one model is gone before the other comes
    try:
        found, _ = _log_probabilities(AutoModelForCausalLM.from_pretrained(path), tokens)
    except (GGUFError, ValueError) as error:
        problems.append(f"the model cannot be loaded: {error}")
        return "the model cannot be loaded"
    if not found.isfinite().all():
        problems.append("the model's answers are no finite numbers")
        return "the model's answers are no finite numbers"
    next_tokens = torch.tensor(tokens[1:])
    return LogitsComparison(
        tokens=len(tokens),
        kl_divergence=float(F.kl_div(found, expected, reduction="batchmean", log_target=True).clamp(min=0)),
        same_top=float((found.argmax(-1) == expected.argmax(-1)).double().mean()),
        source_perplexity=_perplexity(expected, next_tokens),
        perplexity=_perplexity(found, next_tokens),
    )


@torch.inference_mode()
def _log_probabilities(model: Any, tokens: list[int]) -> tuple[Tensor, list[int]]:
    """What may come after each token, `(tokens, vocabulary)`; and the tokens that were read."""
    tokens = tokens[: getattr(model.config, "max_position_embeddings", _MOST_TOKENS)][:_MOST_TOKENS]
    with kernels.multiplying_in(torch.float32):  # in BF16 the products' rounding would count as the weights'
        logits = model(torch.tensor([tokens])).logits[0].float()
    return F.log_softmax(logits, dim=-1), tokens


def _perplexity(log_probabilities: Tensor, next_tokens: Tensor) -> float:
    """Infinite where it is beyond numbers."""
    return float(F.nll_loss(log_probabilities[:-1].double(), next_tokens).exp())


def _available_memory() -> float:
    """Bytes that can be had without swapping; without end where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return math.inf
    return next(
        (int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")), math.inf
    )

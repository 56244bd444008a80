"""Compare a file with its source: tensor by tensor, and by the predictions of both models for a text."""

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
from torchgguf.container.writing.writer import ByteProgress
from torchgguf.models import AutoModelForCausalLM, registry
from torchgguf.quants import quant_type
from torchgguf.tokenization import AutoTokenizer, TokenizerError

_SLAB = 1 << 21  # weights in a slab: 16 MB in float64
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
    """A tensor of the new file compared with its source.

    Attributes:
        name: the name of both.
        source_type: the type before.
        type: the type after.
        error: the relative error sqrt(sum((new - old)^2) / sum(old^2)).
        copied: whether type and bytes are unchanged.
    """

    name: str
    source_type: TensorType
    type: TensorType
    error: float
    copied: bool


class LogitsComparison(NamedTuple):
    """The predictions of two models for the same text.

    Attributes:
        tokens: the number of tokens in the text.
        kl_divergence: from the probabilities of the source to those of the new model, mean over the tokens,
            in nats.
        same_top: how often both models predict the same token, 0 to 1.
        source_perplexity: the perplexity of the text for the source.
        perplexity: the perplexity of the text for the new model.
    """

    tokens: int
    kl_divergence: float
    same_top: float
    source_perplexity: float
    perplexity: float


@dataclass(frozen=True)
class Verification:
    """The comparison of a file with its source.

    Attributes:
        tensors: the tensors that both contain in the same shape.
        logits: the predictions of the models, or the reason why they were not compared.
        problems: errors in the file, one line each; empty for a correct file.
    """

    tensors: tuple[TensorComparison, ...]
    logits: LogitsComparison | str
    problems: tuple[str, ...]

    @property
    def worst(self) -> TensorComparison | None:
        """The tensor with the largest error, or None if no tensor has one."""
        worst = max(self.tensors, key=lambda tensor: tensor.error, default=None)
        return worst if worst is not None and worst.error > 0 else None


def verify(
    path: str | PathLike[str],
    sources: Mapping[str, TensorSource],
    load_source: Callable[[], Any] | None = None,
    *,
    text: str = TEXT,
    progress: ByteProgress | None = None,
) -> Verification:
    """Open a written file and compare it with its source.

    Args:
        path: the file; for a split model, any of its files.
        sources: the original tensors, by their names in the file.
        load_source: returns the original model. Without it only tensors are compared. The same happens if
            this package has no model for the architecture, there is no tokenizer, or memory is too small for
            the larger model. Then `Verification.logits` states the reason.
        text: the text that both models read.
        progress: is called with `(done, total)` bytes of compared tensors.

    Returns:
        The comparison.

    Raises:
        GGUFError: the file is invalid.
    """
    problems: list[str] = []
    tensors = tuple(_compare_tensors(path, sources, problems, progress))
    outcome: LogitsComparison | str = "there is no model to compare with"
    if load_source is not None:
        nbytes = sum(source.nbytes for source in sources.values())
        outcome = _compare_models(Path(path), load_source, nbytes, text, problems)
    return Verification(tensors, outcome, tuple(problems))


def verify_requantized(
    path: str | PathLike[str], source: str | PathLike[str], *, progress: ByteProgress | None = None
) -> Verification:
    """Compare a requantized file with its source, see `verify`.

    Args:
        path: the new file.
        source: the original file.
        progress: is called with `(done, total)` bytes of compared tensors.

    Raises:
        GGUFError: one of the files is invalid.
    """
    with open_gguf(source) as file:
        tensors = file.sources(passing=True)
        return verify(path, tensors, lambda: AutoModelForCausalLM.from_pretrained(source), progress=progress)


def _compare_tensors(
    path: str | PathLike[str],
    sources: Mapping[str, TensorSource],
    problems: list[str],
    progress: ByteProgress | None,
) -> list[TensorComparison]:
    compared = []
    with open_gguf(path) as file:
        total, done = sum(info.nbytes for info in file.tensors.values()), 0
        new = file.sources(passing=True)
        problems += [f"tensor {name!r} is missing" for name in sources if name not in new]
        problems += [f"tensor {name!r} is not in the source" for name in new if name not in sources]
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
        problems.append(f"tensor {name!r} is {new.type.name} like its source, but its bytes differ")
    error, finite = _relative_error(old_rows, source.type, new_rows, new.type)
    if not finite:
        problems.append(f"tensor {name!r} has weights that are not finite")
    elif error > 1:
        problems.append(f"tensor {name!r} has errors {error:.3g} times as large as its weights")
    return TensorComparison(name, source.type, new.type, error, copied=False)


def _relative_error(
    old: Tensor, old_type: TensorType, new: Tensor, new_type: TensorType
) -> tuple[float, bool]:
    """Return the error as in `TensorComparison`, and whether all new weights are finite."""
    error = norm = 0.0
    finite = True
    rows = [tensor.reshape(-1, *tensor.shape[-1:]) for tensor in (old, new)]
    step = max(_SLAB // max(rows[0].shape[-1], 1), 1)
    for old_slab, new_slab in zip(*(tensor.split(step) for tensor in rows), strict=True):
        # In float32 squares may overflow or underflow.
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
    """Compare the predictions of the models for a text, or return why that is not possible."""
    with open_gguf(path) as file:
        try:
            registry.architecture_of_file(file)
        except GGUFError as error:
            return str(error)
        needed, available = max(source_nbytes, file.size), _available_memory()
    if needed > available:
        return f"the larger model needs {needed:,} bytes, but {available:,.0f} are free"
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        source = load_source()
        if not source.can_generate():
            return f"{type(source).__name__} predicts no tokens"
        expected, tokens = _log_probabilities(source, tokenizer(text)["input_ids"])
    except (GGUFError, TokenizerError, ValueError) as error:
        return str(error)
    if not expected.isfinite().all():
        return "the predictions of the source are not finite"
    del source
    gc.collect()  # free the first model before loading the second
    try:
        found, _ = _log_probabilities(AutoModelForCausalLM.from_pretrained(path), tokens)
    except (GGUFError, ValueError) as error:
        problems.append(f"loading the model failed: {error}")
        return "loading the model failed"
    if not found.isfinite().all():
        problems.append("the predictions of the model are not finite")
        return "the predictions of the model are not finite"
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
    """Return the log probabilities of the next tokens, `(tokens, vocabulary)`, and the tokens."""
    tokens = tokens[: getattr(model.config, "max_position_embeddings", _MOST_TOKENS)][:_MOST_TOKENS]
    with kernels.multiplying_in(torch.float32):  # BF16 products would add rounding errors
        logits = model(torch.tensor([tokens])).logits[0].float()
    return F.log_softmax(logits, dim=-1), tokens


def _perplexity(log_probabilities: Tensor, next_tokens: Tensor) -> float:
    """Return the perplexity; infinity if it overflows."""
    return float(F.nll_loss(log_probabilities[:-1].double(), next_tokens).exp())


def _available_memory() -> float:
    """Return the free memory in bytes without swapping, or infinity if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return math.inf
    return next(
        (int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")), math.inf
    )

"""Load what the command line names: a model with its tokenizer, or a session with both."""

import torch
import typer

from torchgguf import AutoModelForCausalLM, AutoTokenizer
from torchgguf.cli.options import DType, Options, split_place, wrong_usage
from torchgguf.cli.session import Session
from torchgguf.cli.steering import add_adapters, add_control_vectors
from torchgguf.generation.resolution import settings_of
from torchgguf.models import PreTrainedModel
from torchgguf.models.io.devices import available_device
from torchgguf.tokenization import Tokenizer


def load_with_tokenizer(
    file: str,
    *,
    device: str | None = None,
    threads: int | None = None,
    dtype: DType | None = None,
    dequantize: bool = False,
    no_mmap: bool = False,
    ignore_metadata: list[str] | None = None,
) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a model with a language head, and its tokenizer; arguments are those of `Options`.

    Raises:
        ValueError: the device is invalid.
    """
    with wrong_usage():
        target = None if device is None else available_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    place, gguf_file = split_place(file)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file)
    model = AutoModelForCausalLM.from_pretrained(
        place,
        gguf_file,
        dequantize=dequantize,
        mmap=not no_mmap,
        ignore_metadata=ignore_metadata or (),
        dtype=None if dtype is None else getattr(torch, dtype),
    )
    return model.to(target or model.device), tokenizer


def start_session(file: str, options: Options) -> Session:
    """Load a model with these options, and start a session with it.

    Raises:
        typer.BadParameter: an option is invalid, or one that this model does not support.
    """
    options.generation_config()  # first, so that invalid options fail before the model is loaded
    model, tokenizer = load_with_tokenizer(
        file,
        device=options.device,
        threads=options.threads,
        dtype=options.dtype,
        dequantize=options.dequantize,
        no_mmap=options.no_mmap,
        ignore_metadata=options.ignore_metadata,
    )
    if options.speculative is not None and not getattr(model.config, "mtp_num_hidden_layers", 0):
        wish = "the model must have a block for multi-token prediction, but it has none"
        raise typer.BadParameter(f"{file}: {wish}", param_hint="--speculative")
    if options.lora:
        add_adapters(model, options.lora)
    add_control_vectors(model, options.control_vector or (), options.control_vector_layers)
    return Session(
        model,
        tokenizer,
        options.generation_config(settings_of(getattr(model, "generation_config", None))),
        max_new_tokens=options.max_new_tokens or None,
        seed=options.seed,
        assistant=None if options.speculative is None else options.speculative.value,
    )

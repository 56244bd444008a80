"""`torchgguf finetune`: train a model on data, and write the result."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from torchgguf.cli.options import (
    DebugOption,
    DeviceOption,
    DTypeOption,
    FileArgument,
    ThreadsOption,
    check_folder_of,
    split_place,
    wrong_usage,
)

if TYPE_CHECKING:
    pass

_DATA, _ADAPTER, _TRAINING, _RUN = "Data", "Adapter", "Training", "Run"


class _Schedule(StrEnum):
    """How the learning rate falls."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


class _Parallelism(StrEnum):
    """How processes under torchrun hold the model."""

    replicate = "replicate"
    shard = "shard"


# By whether all weights are trained, and whether the data are pairs.
_LEARNING_RATES = {(False, False): 2e-4, (False, True): 2e-5, (True, False): 2e-5, (True, True): 2e-6}


def _option(*names: str, group: str, **options: Any) -> Any:
    return Option(*names, rich_help_panel=group, **options)


_Data = Annotated[
    list[Path],
    _option(
        "--data",
        group=_DATA,
        metavar="FILE",
        help="Records to learn: .jsonl, .json, .parquet, or a text (.txt, .md); repeatable.",
    ),
]
_HeldOut = Annotated[
    float,
    _option("--held-out", group=_DATA, metavar="X", min=0, max=0.9, help="The share to measure the loss on."),
]
_HeldOutData = Annotated[
    Path | None,
    _option("--held-out-data", group=_DATA, metavar="FILE", help="Other records to measure the loss on."),
]
_MaxLength = Annotated[
    int, _option("--max-length", group=_DATA, metavar="N", min=2, help="The longest sample, in tokens.")
]
_OnPrompts = Annotated[
    bool, _option("--on-prompts", group=_DATA, help="Also learn prompts, not the answers alone.")
]
_Packing = Annotated[
    bool, _option("--packing/--no-packing", group=_DATA, help="Put short samples in one row.")
]
_Strict = Annotated[bool, _option("--strict", group=_DATA, help="Refuse data with any problem.")]
_DryRun = Annotated[
    bool, _option("--dry-run", group=_DATA, help="Check the data, show the first sample, do not train.")
]
_Rank = Annotated[int, _option("--rank", group=_ADAPTER, metavar="N", min=1, help="The rank of the adapter.")]
_Alpha = Annotated[
    float, _option("--alpha", group=_ADAPTER, metavar="X", help="The adapter's product counts alpha / rank.")
]
_Dropout = Annotated[
    float, _option("--dropout", group=_ADAPTER, metavar="X", min=0, max=0.99, help="Of the adapter's input.")
]
_Targets = Annotated[
    list[str] | None,
    _option(
        "--target-module",
        group=_ADAPTER,
        metavar="NAME",
        help="A layer to adapt, such as q_proj; repeatable.",
        show_default="all linear layers",
    ),
]
_RsLora = Annotated[bool, _option("--rslora", group=_ADAPTER, help="Scale by alpha / sqrt(rank).")]
_Dora = Annotated[bool, _option("--dora", group=_ADAPTER, help="Train the norms of rows separately.")]
_Adapter = Annotated[
    str | None,
    _option("--adapter", group=_ADAPTER, metavar="PLACE", help="Train this adapter further, PEFT's or GGUF."),
]
_Full = Annotated[
    bool, _option("--full", group=_ADAPTER, help="Train all weights, unpacked: much more memory.")
]
_Epochs = Annotated[
    int, _option("--epochs", group=_TRAINING, metavar="N", min=1, help="How often to read the data.")
]
_MaxSteps = Annotated[
    int | None, _option("--max-steps", group=_TRAINING, metavar="N", min=1, help="In place of --epochs.")
]
_BatchSize = Annotated[
    int, _option("--batch-size", group=_TRAINING, metavar="N", min=1, help="Samples in a step.")
]
_TokensPerPass = Annotated[
    int,
    _option(
        "--tokens-per-pass",
        group=_TRAINING,
        metavar="N",
        min=1,
        help="Tokens at a time: less needs less memory. Gradients of a step accumulate.",
    ),
]
_LearningRate = Annotated[
    float | None,
    _option(
        "--learning-rate",
        group=_TRAINING,
        metavar="X",
        help="The largest learning rate.",
        show_default="2e-4; a tenth of it with --full, and a tenth for pairs",
    ),
]
_ScheduleOption = Annotated[
    _Schedule,
    _option("--schedule", group=_TRAINING, metavar="cosine|linear|constant", help="How the rate falls."),
]
_Warmup = Annotated[
    float,
    _option("--warmup", group=_TRAINING, metavar="X", min=0, max=1, help="Share of steps in which it rises."),
]
_WeightDecay = Annotated[
    float, _option("--weight-decay", group=_TRAINING, metavar="X", min=0, help="Of AdamW.")
]
_MaxGradNorm = Annotated[
    float, _option("--max-grad-norm", group=_TRAINING, metavar="X", min=0, help="Clip gradients; 0: never.")
]
_Beta = Annotated[
    float, _option("--beta", group=_TRAINING, metavar="X", min=0, help="Of preference pairs (DPO).")
]
_GradientCheckpointing = Annotated[
    bool, _option("--gradient-checkpointing", group=_TRAINING, help="Less memory, a third more time.")
]
_Seed = Annotated[
    int, _option("--seed", group=_TRAINING, metavar="N", min=0, help="The same seed repeats a run.")
]
_Output = Annotated[
    Path,
    _option(
        "-o",
        "--output",
        group=_RUN,
        metavar="OUT",
        help="tuned.gguf: the whole model; a folder: the adapter, for PEFT.",
    ),
]
_AdapterOnly = Annotated[
    bool, _option("--adapter-only", group=_RUN, help="Write OUT.gguf as an adapter, for llama.cpp.")
]
_Quantization = Annotated[
    str | None,
    _option(
        "--quantization",
        group=_RUN,
        metavar="TYPE",
        help="Of the tensors that changed in OUT.gguf.",
        show_default="their own",
    ),
]
_RunFolder = Annotated[
    Path | None,
    _option(
        "--run-folder",
        group=_RUN,
        metavar="FOLDER",
        help="For checkpoints and the plot of losses.",
        show_default="OUT-run",
    ),
]
_Resume = Annotated[bool, _option("--resume", group=_RUN, help="Go on from the last checkpoint, if any.")]
_EvalEvery = Annotated[
    int | None,
    _option("--eval-every", group=_RUN, metavar="N", min=1, help="Steps.", show_default="a tenth of all"),
]
_SaveEvery = Annotated[
    int | None,
    _option("--save-every", group=_RUN, metavar="N", min=1, help="Steps.", show_default="a tenth of all"),
]
_ParallelismOption = Annotated[
    _Parallelism,
    _option(
        "--parallelism",
        group=_RUN,
        metavar="replicate|shard",
        help="Under torchrun: each process holds the model, or a part of it.",
    ),
]


def finetune_command(
    file: FileArgument,
    data: _Data,
    output: _Output,
    held_out: _HeldOut = 0.05,
    held_out_data: _HeldOutData = None,
    max_length: _MaxLength = 2048,
    on_prompts: _OnPrompts = False,
    packing: _Packing = True,
    strict: _Strict = False,
    dry_run: _DryRun = False,
    rank: _Rank = 16,
    alpha: _Alpha = 32,
    dropout: _Dropout = 0.0,
    target_module: _Targets = None,
    rslora: _RsLora = False,
    dora: _Dora = False,
    adapter: _Adapter = None,
    full: _Full = False,
    epochs: _Epochs = 3,
    max_steps: _MaxSteps = None,
    batch_size: _BatchSize = 16,
    tokens_per_pass: _TokensPerPass = 2048,
    learning_rate: _LearningRate = None,
    schedule: _ScheduleOption = _Schedule.cosine,
    warmup: _Warmup = 0.03,
    weight_decay: _WeightDecay = 0.0,
    max_grad_norm: _MaxGradNorm = 1.0,
    beta: _Beta = 0.1,
    gradient_checkpointing: _GradientCheckpointing = False,
    seed: _Seed = 0,
    run_folder: _RunFolder = None,
    resume: _Resume = False,
    eval_every: _EvalEvery = None,
    save_every: _SaveEvery = None,
    adapter_only: _AdapterOnly = False,
    quantization: _Quantization = None,
    parallelism: _ParallelismOption = _Parallelism.replicate,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    dtype: DTypeOption = None,
    debug: DebugOption = False,
) -> None:
    """Train a model on data: an adapter beside packed weights, or all weights.

    Records have messages (and tools), prompt and completion, chosen and rejected (and prompt), instruction
    and output, or text. Answers are learnt, in the model's own chat template. Problems of the data are shown
    before the first step.

    A run repeats exactly. Ctrl-C ends it after a step, with a checkpoint; `--resume` continues it.
    """
    if full and (adapter is not None or adapter_only):
        raise typer.BadParameter("excludes --adapter and --adapter-only", param_hint="--full")
    if full and output.suffix != ".gguf":
        raise typer.BadParameter("must be a .gguf file with --full", param_hint="--output")
    if adapter_only and output.suffix != ".gguf":
        raise typer.BadParameter("is for .gguf: a folder is an adapter anyway", param_hint="--adapter-only")
    check_folder_of(str(output))
    import torch

    from torchgguf.cli.loading import load_with_tokenizer
    from torchgguf.cli.training import Output, check_data, show_first, train, write
    from torchgguf.training.data import load_training_data
    from torchgguf.training.loop.run import TrainingRun
    from torchgguf.training.loop.settings import TrainingSettings

    def load() -> tuple[Any, Any]:
        options: dict[str, Any] = {"device": device, "threads": threads, "dtype": dtype}
        loaded, words = load_with_tokenizer(file, dequantize=full, **options)
        torch.manual_seed(seed)
        if full:
            loaded.requires_grad_(True)
        elif adapter is not None:
            from torchgguf.training.adapters import load_adapter

            folder, gguf_file = split_place(adapter)
            load_adapter(loaded, folder, gguf_file=gguf_file)
        else:
            from torchgguf.training.lora import ALL_LINEAR, add_lora

            names = target_module or ALL_LINEAR
            add_lora(loaded, rank, alpha, names, dropout, use_rslora=rslora, use_dora=dora)
        return loaded, words

    model, tokenizer = load()
    context = getattr(model.config, "max_position_embeddings", max_length)
    read = load_training_data(
        [*data] if len(data) > 1 else data[0],
        tokenizer,
        max_length=min(max_length, context),
        held_out=held_out if held_out_data is None else held_out_data,
        on_prompts=on_prompts,
        seed=seed,
    )
    check_data(read, strict)
    with wrong_usage():
        settings = TrainingSettings(
            epochs=epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            tokens_per_pass=tokens_per_pass,
            packing=packing,
            learning_rate=learning_rate or _LEARNING_RATES[full, read.is_preference],
            schedule=schedule.value,
            warmup=warmup,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            beta=beta,
            gradient_checkpointing=gradient_checkpointing,
            seed=seed,
            eval_every=eval_every,
            save_every=save_every,
        )
    if dry_run:
        show_first(read, tokenizer)
        return
    place = run_folder or output.with_name(f"{output.stem}-run")
    run = TrainingRun(model, read, settings, place, resume=resume, parallelism=parallelism.value)
    train(run, place)
    trained = run.trained_parameters()
    if not run.processes.is_main:
        return
    if run.processes.is_sharded:
        model, tokenizer = load()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in trained:
                    parameter.copy_(trained[name])
    write(Output(file, output, place, full, adapter_only, quantization), model, tokenizer)
    assert run.checkpoints is not None
    run.checkpoints.remove()

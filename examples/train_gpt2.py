"""Train a small GPT-2 from scratch on a text, plot its loss, and generate with llama.cpp.

    python examples/train_gpt2.py [TEXT] [--steps 400] [--out gpt2-from-scratch]

Writes to a folder: `loss.png`, a Hugging Face checkpoint (config.json, model.safetensors, tokenizer), and
`gpt2.gguf`, with which llama.cpp continues a prompt (if xllamacpp is installed). Ctrl-C ends the training
early; the model at that time is saved.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from torchgguf import AutoTokenizer, GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from fetch_models import LLAMA_CPP, fetch_with_bar  # noqa: E402  (a script, not a package)

HELD_OUT = 0.1  # share of the text, at its end, that is not used for training


@dataclass
class Losses:
    """Losses in nats a token: of every step, and of the held-out text by the number of steps before."""

    training: list[float] = field(default_factory=list)
    held_out: dict[int, float] = field(default_factory=dict)


def paragraphs(text: str) -> str:
    """Return the text with each paragraph on one line, without indentation."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def batches(tokens: torch.Tensor, length: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Return `(size, length)` tokens from random positions."""
    starts = torch.randint(len(tokens) - length, (size,), generator=generator)
    return torch.stack([tokens[start : start + length] for start in starts.tolist()])


@torch.no_grad()
def loss_on(model: GPT2LMHeadModel, tokens: torch.Tensor, length: int) -> float:
    """Return the mean loss over a text, in nats a token."""
    model.eval()
    windows = tokens[: len(tokens) // length * length].view(-1, length)
    parts = windows.split(8)
    losses = [len(part) * model(part, labels=part, use_cache=False).loss for part in parts]
    model.train()
    return float(torch.stack(losses).sum()) / len(windows)


def train(model: GPT2LMHeadModel, tokens: torch.Tensor, steps: int, batch_size: int, rate: float) -> Losses:
    """Train with AdamW, a warm-up and a cosine decay; Ctrl-C ends it early."""
    losses, length = Losses(), model.config.n_positions
    cut = int(len(tokens) * (1 - HELD_OUT))
    training, held_out = tokens[:cut], tokens[cut:]
    if len(held_out) < length:
        raise SystemExit(f"the text has {len(tokens)} tokens, too few for windows of {length}")
    # No weight decay for norms and biases, as is usual.
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.55 + 0.45 * math.cos(math.pi * step / steps)),
    )
    generator = torch.Generator().manual_seed(0)
    model.train()
    bar = tqdm(range(steps), "training", unit="step")
    try:
        for step in bar:
            if step % max(1, steps // 10) == 0:
                losses.held_out[step] = loss_on(model, held_out, length)
            window = batches(training, length, batch_size, generator)
            loss = model(window, labels=window, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            losses.training.append(loss.item())
            bar.set_postfix(
                loss=f"{losses.training[-1]:.2f}", held_out=f"{[*losses.held_out.values()][-1]:.2f}"
            )
    except KeyboardInterrupt:
        bar.close()
        print(f"ended after {len(losses.training)} steps")
    losses.held_out[len(losses.training)] = loss_on(model, held_out, length)
    model.eval()
    return losses


def plot(losses: Losses, vocab_size: int, title: str, path: Path) -> None:
    """Plot the losses, and that of guessing."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    steps, held_out = [*losses.held_out], [*losses.held_out.values()]
    axes.axhline(math.log(vocab_size), color="#8d94a8", linestyle=":")
    axes.plot(losses.training, color="#2a78b5", linewidth=1)
    axes.plot(steps, held_out, color="#c0392b", marker="o", markersize=4)
    labels = (
        (f"guessing among {vocab_size} tokens", math.log(vocab_size), -16, "#6b6b6b"),
        (f"held-out text {held_out[-1]:.1f}", held_out[-1], 8, "#c0392b"),
        (f"training text {losses.training[-1]:.1f}", losses.training[-1], -28, "#2a78b5"),
    )
    for text, height, above, colour in labels:
        place = {"xy": (steps[-1], height), "xytext": (0, above), "textcoords": "offset points"}
        axes.annotate(text, **place, ha="right", color=colour, fontweight="bold")
    axes.set(xlabel="step", ylabel="loss (nats a token)", title=title, xlim=(0, steps[-1]), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def speak(model: GPT2LMHeadModel, tokenizer: object, prompt: str, tokens: int) -> str:
    """Continue a text with the model in memory, always by the most likely token."""
    inputs = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(out[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)


def llama_cpp_speaks(path: Path, prompt: str, tokens: int) -> str | None:
    """Continue the text with llama.cpp from the GGUF file; return None if it is not installed."""
    try:
        import xllamacpp
    except ImportError:
        return None
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.warmup, params.verbosity = False, 0
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": prompt, "max_tokens": tokens, "temperature": 0.0})
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    return str(answer["choices"][0]["text"])


def positive(text: str) -> int:
    """Parse a number of the command line that must be 1 or more."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", nargs="?", type=Path, default=ROOT / "tests" / "data" / "gpl-3.0.txt")
    parser.add_argument("--out", type=Path, default=Path("gpt2-from-scratch"), help="folder to write to")
    parser.add_argument("--tokenizer", type=Path, help="GGUF file with a vocabulary; default: GPT-2's own")
    parser.add_argument("--steps", type=positive, default=400)
    parser.add_argument("--batch-size", type=positive, default=8, help="windows a step")
    parser.add_argument(
        "--length", type=positive, default=64, help="tokens a window, and the model's maximum"
    )
    parser.add_argument("--layers", type=positive, default=4)
    parser.add_argument("--heads", type=positive, default=4)
    parser.add_argument("--width", type=positive, default=128, help="size of the hidden states")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--prompt", default="You may not", help="text for the trained model to continue")
    arguments = parser.parse_args()
    if arguments.width % arguments.heads:
        parser.error(f"--width must be a multiple of --heads {arguments.heads}, got {arguments.width}")
    return arguments


def main() -> None:
    """Train, plot, save and generate; an error in reading or writing is one line."""
    try:
        run(parse_arguments())
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def run(arguments: argparse.Namespace) -> None:
    """Train, plot, save and generate, as the arguments state."""
    text = paragraphs(arguments.text.read_text(encoding="utf-8"))
    if arguments.tokenizer is None:
        fetch_with_bar("llama.cpp")
        arguments.tokenizer = LLAMA_CPP / "models" / "ggml-vocab-gpt-2.gguf"
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    arguments.out.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    tokens = torch.tensor(tokenizer(text).input_ids)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=arguments.length,
        n_embd=arguments.width,
        n_layer=arguments.layers,
        n_head=arguments.heads,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPT2LMHeadModel(config)
    size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{size:.1f}M parameters, {len(tokens)} tokens of {arguments.text.name}")
    losses = train(model, tokens, arguments.steps, arguments.batch_size, arguments.learning_rate)
    if losses.training:
        held_out = [*losses.held_out.values()][-1]
        print(f"loss: {losses.training[0]:.2f} -> {losses.training[-1]:.2f}, held-out text: {held_out:.2f}")
        title = f"A GPT-2 of {size:.1f}M parameters learns {arguments.text.name} from scratch"
        plot(losses, len(tokenizer), title, arguments.out / "loss.png")

    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    path = arguments.out / "gpt2.gguf"
    model.save_gguf(path, tokenizer=tokenizer)
    print(f"written: {arguments.out}/ (loss.png, model.safetensors, gpt2.gguf)")

    length = min(40, arguments.length - len(tokenizer(arguments.prompt).input_ids))
    print(f"torchgguf: {arguments.prompt!r} + {speak(model, tokenizer, arguments.prompt, length)!r}")
    told = llama_cpp_speaks(path, arguments.prompt, length)
    if told is None:
        print("llama.cpp: not installed (pip install xllamacpp)")
    else:
        print(f"llama.cpp: {arguments.prompt!r} + {told!r}")


if __name__ == "__main__":
    main()

"""Serve folders of `save_pretrained` with vLLM, query it by OpenAI's client, compare tokens with torchgguf's.

    python examples/serve_with_vllm.py                        # a small GPT-2 and a small Llama, made here
    python examples/serve_with_vllm.py DIR --vllm-python ~/vllm/bin/python -- --enforce-eager

vLLM serves each model twice: by its own implementation, and with `--model-impl transformers`. Arguments after
`--` are passed to vLLM. docs/vllm.md explains its installation. Exit codes: 0 all tokens are equal, 1 they
differ or something failed, 2 wrong usage, 130 ended by Ctrl-C.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

TEXT = Path(__file__).parent.parent / "tests" / "data" / "gpl-3.0.txt"
PROMPTS = (
    "The GNU General Public License",
    "You may convey verbatim copies",
    "Hello, I'm a language model",
    "a",
)
NEW_TOKENS = 32
IMPLEMENTATIONS = ("auto", "transformers")
STOP_SECONDS = 20

console = Console(highlight=False)


class ServingError(RuntimeError):
    """The server failed; the message contains the reason."""


@dataclass(frozen=True)
class Answer:
    """The tokens of a model for one prompt."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]
    """Natural logarithms of the probability of each token."""


def make_models(folder: Path) -> list[Path]:
    """Write a small random GPT-2 and a small random Llama into folders of their own."""
    import torch

    from torchgguf import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(train_tokenizer(folder / "tokenizer"))
    # Heads of 32, the smallest that vLLM's CPU kernels support; large weights, so that texts change tokens.
    common = {"vocab_size": 600, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.2}
    gpt2 = GPT2Config(n_positions=256, n_embd=128, n_layer=3, n_head=4, **common)
    llama = LlamaConfig(
        max_position_embeddings=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        **common,
    )
    torch.manual_seed(0)
    models = {"gpt2": GPT2LMHeadModel(gpt2), "llama": LlamaForCausalLM(llama)}
    for name, model in models.items():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):  # they are zero at first, and errors in them would not show
                torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return [folder / name for name in models]


def train_tokenizer(folder: Path) -> Path:
    """Write the files of a byte-level BPE tokenizer with 600 tokens; return their folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT.read_text()], trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def ask_torchgguf(folder: Path) -> list[Answer]:
    """Continue each prompt greedily with torchgguf."""
    import torch

    from torchgguf import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        start = inputs["input_ids"].shape[1]
        ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
        with torch.no_grad():
            logprobs = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
        tokens = ids[0, start:]
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        answers.append(Answer(ids[0, :start].tolist(), tokens.tolist(), chosen.tolist()))
    return answers


def ask_vllm(client: Any) -> list[Answer]:
    """Continue all prompts greedily with the server, as one batch."""
    completion = client.completions.create(
        model=client.models.list().data[0].id,
        prompt=list(PROMPTS),
        max_tokens=NEW_TOKENS,
        temperature=0,
        logprobs=0,
        extra_body={"return_token_ids": True, "ignore_eos": True},  # extensions of vLLM
    )
    return [
        Answer(choice.prompt_token_ids, choice.token_ids, choice.logprobs.token_logprobs)
        for choice in sorted(completion.choices, key=lambda choice: choice.index)
    ]


def require_vllm(python: str) -> None:
    """Raise a `ServingError` unless this is a Python with vLLM."""
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        found = subprocess.run([python, "-c", probe]).returncode == 0
    except OSError as error:
        raise ServingError(f"--vllm-python {python}: {error.strerror}") from error
    if not found:
        raise ServingError(f"vLLM is not installed for {python}: see docs/vllm.md and --vllm-python")


@contextmanager
def serve(
    python: str, folder: Path, implementation: str, options: Sequence[str], timeout: float
) -> Iterator[Any]:
    """Run vLLM's server while the block lasts; yield OpenAI's client for it, once it answers.

    Raises:
        ServingError: the server ended, was not ready within `timeout` seconds, or failed to answer.
    """
    from openai import DefaultHttpxClient, OpenAI, OpenAIError

    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--model-impl", implementation, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", *options]  # in half precision a near tie could change tokens
    # The model is on this disk. On a CPU, vLLM would reserve much of the memory for its cache.
    needed = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1"} | os.environ | needed
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1",
            api_key="none",
            max_retries=0,
            http_client=DefaultHttpxClient(trust_env=False),  # no proxy for this machine itself
        ) as client,
    ):
        # A session of its own: `stop` also ends what the server starts.
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            wait_until_ready(server, client, timeout)
            yield client
        except (ServingError, OpenAIError) as error:
            raise ServingError("\n".join([str(error), *telling_lines(log)])) from error
        finally:
            stop(server)


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_ready(server: subprocess.Popen[bytes], client: Any, timeout: float) -> None:
    """Wait until the server answers, and show the seconds."""
    from openai import APIConnectionError

    begin = time.monotonic()
    with console.status("starting vLLM …") as status:
        while (seconds := time.monotonic() - begin) < timeout:
            if server.poll() is not None:
                raise ServingError(f"vLLM ended with exit code {server.returncode}")
            with suppress(APIConnectionError):  # it does not listen yet
                client.models.list(timeout=5)
                return
            status.update(f"starting vLLM … {seconds:.0f} s")
            time.sleep(0.5)
    raise ServingError(f"vLLM was not ready after {timeout:.0f} s (see --timeout)")


def telling_lines(log: TextIO) -> list[str]:
    """Return the first lines of a log that name an exception, and its last lines."""
    log.seek(0)
    lines = log.read().splitlines()
    exceptions = [line for line in lines if re.search(r"(^| )\w+Error: ", line)]
    return [*exceptions[:3], "...", *lines[-10:]]


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and what it started: first by SIGTERM, after some seconds by SIGKILL."""
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also after another Ctrl-C
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def compare(ours: Sequence[Answer], theirs: Sequence[Answer]) -> tuple[bool, list[str]]:
    """Return whether all tokens are equal, and two cells: how many are, and how far logarithms differ."""
    if [one.prompt for one in ours] != [other.prompt for other in theirs]:
        return False, ["the prompts' tokens differ", ""]
    pairs = [
        pair
        for one, other in zip(ours, theirs, strict=True)
        for pair in zip(one.tokens, other.tokens, strict=True)
    ]
    equal = sum(mine == its for mine, its in pairs)
    apart = max(
        abs(mine - its)
        for one, other in zip(ours, theirs, strict=True)
        for mine, its in zip(one.logprobs, other.logprobs, strict=True)
    )
    return equal == len(pairs), [f"{equal} of {len(pairs)}", f"{apart:.1e}"]


def serve_and_compare(folders: Sequence[Path], python: str, options: Sequence[str], timeout: float) -> bool:
    """Compare each model and implementation, and show a table; return whether all tokens are equal."""
    table = Table("model", "--model-impl", "equal tokens", "log-probabilities apart")
    verdicts = []
    for folder in folders:
        ours = ask_torchgguf(folder)
        for implementation in IMPLEMENTATIONS:
            console.print(f"serving {folder.name} with --model-impl {implementation}", markup=False)
            try:
                with serve(python, folder, implementation, options, timeout) as client:
                    good, words = compare(ours, ask_vllm(client))
            except ServingError as error:
                print(error, file=sys.stderr)
                good, words = False, ["failed", ""]
            table.add_row(folder.name, implementation, *words, style=None if good else "red")
            verdicts.append(good)
    console.print(table)
    return all(verdicts)


def main() -> int:
    """Read the command line, compare, return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="folder of save_pretrained")
    parser.add_argument("--vllm-python", default=sys.executable, metavar="PATH", help="Python with vLLM")
    parser.add_argument(
        "--timeout", type=float, default=300, help="seconds to wait for a server (%(default)g)"
    )
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    # SIGTERM raises an exception, too, so that servers are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        require_vllm(arguments.vllm_python)
        with tempfile.TemporaryDirectory() as scratch:
            folders = arguments.folders or make_models(Path(scratch))
            good = serve_and_compare(folders, arguments.vllm_python, options, arguments.timeout)
    except KeyboardInterrupt:
        return 130
    except (ServingError, ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""`run` and `chat` say what transformers' model says, stream it, and can be interrupted."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import transformers

from tests.cli.conftest import COMMAND, TIMEOUT
from tests.models.files import edited
from tests.support import SMOLLM2
from torchgguf import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.slow

TURNS = ["What is the capital of France?", "Say that in other words."]
GREEDY = ["--temperature", 0, "-n", 24, "--dequantize"]


@pytest.fixture(scope="module")
def answers() -> list[str]:
    """Greedy answers to the turns by transformers' Llama, with the whole conversation read anew each time."""
    ours = AutoModelForCausalLM.from_pretrained(SMOLLM2, dequantize=True)
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    hf = transformers.LlamaForCausalLM(transformers.LlamaConfig(**ours.config.to_dict())).eval()
    hf.load_state_dict(ours.state_dict())
    messages, texts = [], []
    for turn in TURNS:
        messages.append({"role": "user", "content": turn})
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        out = hf.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :]
        texts.append(tokenizer.decode(out.tolist(), skip_special_tokens=True))
        messages.append({"role": "assistant", "content": texts[-1]})
    return texts


@pytest.mark.parametrize("given", ["argument", "pipe"])
def test_run_answers(torchgguf, answers, given):
    arguments, text = ([TURNS[0]], "") if given == "argument" else (["-"], TURNS[0] + "\n")
    result = torchgguf("run", SMOLLM2, *arguments, *GREEDY, input=text)
    assert result.returncode == 0
    assert result.stdout == answers[0] + "\n"


def test_chat_remembers(torchgguf, answers):
    lines = [TURNS[0], "/help", "", "/frobnicate", TURNS[1], "/reset", TURNS[0], "/exit", TURNS[1]]
    result = torchgguf("chat", SMOLLM2, *GREEDY, input="\n".join(lines))
    assert result.returncode == 0
    assert result.stdout == f"{answers[0]}\n{answers[1]}\n{answers[0]}\n"
    assert "/reset" in result.stderr
    assert "no /frobnicate" in result.stderr


def test_raw_text_goes_on(torchgguf):
    once, again = (
        torchgguf("run", SMOLLM2, "--raw", "--seed", 3, "-n", 12, "--stats", input="Once upon a time")
        for _ in range(2)
    )
    assert once.returncode == 0
    assert once.stdout == again.stdout
    assert "4 tokens" in once.stderr
    assert "cut off" in once.stderr


def test_settings_reach_the_model(torchgguf):
    result = torchgguf(
        "run",
        SMOLLM2,
        "Count from 1 to 9.",
        "-t",
        0,
        "--stop",
        "4",
        "--threads",
        1,
        "--system",
        "Just count.",
    )
    assert result.returncode == 0
    assert result.stdout.count("4") == 1
    assert result.stdout.rstrip("\n").endswith("4")


def test_system_needs_a_template(torchgguf, tmp_path):
    plain = edited(SMOLLM2, tmp_path / "plain.gguf", {"tokenizer.chat_template": None})
    result = torchgguf("run", plain, "x", "--system", "y")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: --system")


def test_a_prompt_longer_than_the_context(torchgguf):
    result = torchgguf("run", SMOLLM2, "--raw", input="word " * 9000)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: the text has 9001 tokens, but the model's context is 8192\n"


def test_ctrl_c_ends_run():
    process = subprocess.Popen(
        [*COMMAND, "run", SMOLLM2, "--raw", "Once upon a time", "-n", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert b"Traceback" not in process.stderr.read()
    assert process.wait(TIMEOUT) == 130


# What ends a conversation: an empty line, for the shell to start on the next.
LAST_LINE = re.compile(r"\r\n")


class Terminal:
    """`torchgguf chat` in a pseudo-terminal."""

    def __init__(self, file: Path, length: int) -> None:
        self.end, inner = pty.openpty()
        command = [*COMMAND, "chat", file, "-n", str(length), "--seed", "1"]
        self.process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner)
        os.close(inner)
        self.text = ""

    def wait_for(self, text: str) -> None:
        """Read until something is shown; forget what was shown up to there."""
        while text not in self.text:
            ready, _, _ = select.select([self.end], [], [], TIMEOUT)
            assert ready, f"{text!r} is not shown after {self.text!r}"
            self.text += os.read(self.end, 1024).decode(errors="replace")
        self.text = self.text.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def rest(self) -> str:
        """What is shown until the process ends."""
        try:
            while piece := os.read(self.end, 1024):
                self.text += piece.decode(errors="replace")
        except OSError:  # how Linux says that nobody is there any more
            pass
        return self.text


@pytest.fixture
def chat():
    """`chat(file, length)`: start one in a terminal, for answers of up to that length."""
    with contextlib.ExitStack() as ends:

        def start(file: Path = SMOLLM2, length: int = 0) -> Terminal:
            terminal = Terminal(file, length)
            ends.callback(os.close, terminal.end)
            ends.callback(terminal.process.wait)
            ends.callback(terminal.process.kill)
            return terminal

        yield start


def test_ctrl_c_ends_the_answer_and_ctrl_d_the_conversation(chat):
    terminal = chat()
    terminal.wait_for("> ")
    terminal.type("Tell me a very long story about a fox.\n")
    terminal.wait_for("fox.\r\n")
    terminal.wait_for(" ")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("tokens")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert LAST_LINE.fullmatch(terminal.rest())
    assert terminal.process.wait(TIMEOUT) == 0


def test_a_turn_that_is_too_long_is_not_the_end(chat, tmp_path):
    terminal = chat(edited(SMOLLM2, tmp_path / "short.gguf", {"llama.context_length": 64}), length=4)
    terminal.wait_for("> ")
    terminal.type("word " * 64 + "\n")
    terminal.wait_for("context is 64; /reset forgets the conversation\r\n")
    terminal.wait_for("> ")
    terminal.type("Hello\n")  # said in place of what was too long
    terminal.wait_for("answer: 4 tokens")
    terminal.wait_for("> ")
    terminal.type("/exit\n")
    assert "error" not in terminal.rest()
    assert terminal.process.wait(TIMEOUT) == 0


def test_ctrl_c_while_nothing_is_said_leaves(chat):
    terminal = chat()
    terminal.wait_for("> ")
    for _ in range(10):  # Python misses a signal just before it starts to wait for a key
        terminal.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            terminal.process.wait(TIMEOUT / 10)
            break
    assert LAST_LINE.fullmatch(terminal.rest())
    assert terminal.process.wait(TIMEOUT) == 130

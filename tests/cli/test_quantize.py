"""`torchgguf quantize` on the command line; tests/conversion/test_requantize.py proves what it writes."""

import math
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import gguf
import pytest
import typer

from tests.cli.conftest import COMMAND, TIMEOUT
from tests.conversion.test_requantize import write_unknown
from tests.support import ROOT, SMOLLM2
from torchgguf.cli import quantize as command
from torchgguf.cli.summaries import show_verification
from torchgguf.container import TensorType, split_gguf
from torchgguf.conversion import plan_requantization
from torchgguf.conversion.verification import LogitsComparison, TensorComparison, Verification
from torchgguf.packing import RECIPES, ImportanceMatrix, Quantization
from torchgguf.quants import quant_type


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    return write_unknown(tmp_path_factory.mktemp("unknown") / "in.gguf")


def lines(result):
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def types(path):
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def test_what_became_what_is_told(torchgguf, unknown, tmp_path):
    out = tmp_path / "out.gguf"
    result = torchgguf("quantize", unknown, out, "q4_k_m", "--verify", "--threads", 1)
    assert (result.returncode, result.stderr) == (0, "")
    told = lines(result)
    assert told[1] == "name tensors was type bytes error worst"
    assert any(re.fullmatch(r"token_embd\.weight 1 F32 Q6_K 13,440 1\.\d+% 1\.\d+%", line) for line in told)
    assert any(re.match(r"blk\.\*\.odd\.weight 2 F32 Q5_0 for Q4_K 1,056 ", line) for line in told)
    assert "blk.*.attn_norm.weight 2 F32 F32 2,048" in told
    assert "tensors whose rows do not divide into the blocks of the recipe's type: 2" in told
    before, after = (sum(int(t.n_bytes) for t in gguf.GGUFReader(path).tensors) for path in (unknown, out))
    weights = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(out).tensors)
    bits = 8 * after / weights
    assert f"{before:,} bytes of tensors have become {after:,}: {bits:.3f} bits per weight" in told
    assert f"{out}: {out.stat().st_size:,} bytes" in told
    assert "verified: 11 tensors, 2 of them byte-identical" in told
    assert any(
        line.startswith(f"predictions not compared: {out}: architecture 'mystery' is not supported")
        for line in told
    )


def test_a_real_model_is_verified(torchgguf, tmp_path):
    result = torchgguf("quantize", SMOLLM2, tmp_path / "x.gguf", "Q8_0", "--allow-requantize", "--verify")
    assert (result.returncode, result.stderr) == (0, "")
    pattern = r".*: mean KL divergence (.*), same best token (.*)%, perplexity (.*) \(source (.*)\)"
    figures = re.fullmatch(pattern, lines(result)[-1])
    divergence, same, perplexity, expected = map(float, figures.groups())
    assert 0 <= divergence < 0.01
    assert same > 95
    assert perplexity == pytest.approx(expected, rel=0.01)


def test_a_dry_run(torchgguf, unknown):
    result = torchgguf("quantize", unknown, "IQ2_XXS", "--dry-run")
    assert result.returncode == 0
    assert re.fullmatch(
        r"warning: quantizing would fail: packing tensor .* no importance matrix.*\n", result.stderr
    )
    assert any(line.startswith("blk.*.ffn_up.weight 2 F16 IQ2_XXS ") for line in lines(result))
    assert not list(unknown.parent.glob("*XXS*"))
    assert any(re.fullmatch(r"[\d,]+ bytes of tensors would become .*", line) for line in lines(result))
    with_out = torchgguf("quantize", unknown, "out.gguf", "Q8_0", "--dry-run")
    assert (with_out.returncode, with_out.stderr) == (0, "")
    assert not Path("out.gguf").exists()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="terminals differ elsewhere")
def test_numbers_stay_whole_on_a_narrow_terminal(unknown):
    shown, terminal = os.openpty()
    command = [*COMMAND, "quantize", str(unknown), "IQ2_XXS", "--dry-run"]
    environment = {**os.environ, "COLUMNS": "40", "TERM": "dumb"}
    subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, env=environment, timeout=TIMEOUT)
    text = os.read(shown, 1 << 16).decode()
    os.close(terminal)
    os.close(shown)
    plan = plan_requantization(unknown, Quantization("IQ2_XXS")).report
    assert {f"{part.nbytes:,}" for part in plan.totals().values()} <= set(text.split())
    assert "blk.*.attn_v.weight" in text
    assert "…" not in text


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--pure"], {"token_embd.weight": "Q4_K", "blk.1.ffn_down.weight": "Q4_K"}),
        (
            ["--tensor-type", "ffn_(up|down)=q8_0"],
            {"blk.0.ffn_up.weight": "Q8_0", "blk.1.ffn_down.weight": "Q8_0"},
        ),
        (["--token-embedding-type", "F16"], {"token_embd.weight": "F16", "blk.0.ffn_up.weight": "Q4_K"}),
        (["--output-tensor-type", "Q5_0"], {"token_embd.weight": "Q5_0", "blk.0.ffn_up.weight": "Q4_K"}),
    ],
)
def test_options(torchgguf, unknown, tmp_path, options, expected):
    result = torchgguf("quantize", unknown, tmp_path / "out.gguf", "Q4_K_M", *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert expected.items() <= types(tmp_path / "out.gguf").items()


def test_split_models(torchgguf, unknown, tmp_path):
    first, *_ = split_gguf(unknown, tmp_path / "in", max_tensors=6)
    result = torchgguf("quantize", first, tmp_path / "out.gguf", "Q8_0", "--keep-split", "--verify")
    assert (result.returncode, result.stderr) == (0, "")
    written = sorted(tmp_path.glob("out-*"))
    assert [path.name for path in written] == ["out-00001-of-00002.gguf", "out-00002-of-00002.gguf"]
    assert [len(types(path)) for path in written] == [6, 5]
    for path in written:
        assert f"{path}: {path.stat().st_size:,} bytes" in lines(result)


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["IN", "out.gguf", "Q4_L"], 2, "unknown quantization 'Q4_L'; known: F32,"),
        (["IN", "out.gguf"], 2, "requires IN, OUT and TYPE"),
        (["IN", "out.gguf", "Q8_0", "--tensor-type", "ffn_up"], 2, "'ffn_up' is not PATTERN=TYPE"),
        (["IN", "out.gguf", "Q8_0", "--tensor-type", "wrong=Q8_0"], 1, "'wrong'"),
        (["IN", "out.gguf", "Q8_0", "--tensor-type", "ffn_up=Q9"], 2, "unknown quantization type 'Q9'"),
        # What is wrong with the types is said before anything is fetched.
        (["missing.gguf", "out.gguf", "Q8_0", "--output-tensor-type", "Q9"], 2, "quantization type 'Q9'"),
        (["missing.gguf", "missing/out.gguf", "Q8_0"], 1, "there is no folder missing"),
        (["IN", "out.gguf", "Q8_0", "--imatrix", "missing.gguf"], 1, "missing.gguf"),
        (["IN", "out.gguf", "IQ2_XXS"], 1, "importance matrix"),
        (["IN", "out.gguf", "Q8_0", "--dry-run", "--verify"], 2, "--verify"),
        (["IN", "out.gguf", "Q8_0", "--keep-split"], 1, "no split to keep"),
        (["IN", "IN", "Q8_0"], 1, "is a file to read"),
        ([SMOLLM2, "out.gguf", "Q4_K_M"], 1, "is packed to Q4_1 already"),
        ([ROOT / "docs", "out.gguf", "Q8_0"], 1, "docs OUT --quantization Q8_0`"),
        (["missing.gguf", "out.gguf", "Q8_0"], 1, "missing.gguf"),
    ],
    ids=lambda value: " ".join(map(str, value[1:])) if isinstance(value, list) else "",
)
def test_what_is_refused(torchgguf, unknown, tmp_path, arguments, code, message):
    names = {"IN": unknown, "out.gguf": tmp_path / "out.gguf"}
    result = torchgguf("quantize", *(names.get(argument, argument) for argument in arguments))
    assert result.returncode == code
    assert re.fullmatch(r"error: .*\n", result.stderr)
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="how far it is shows in /proc alone")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_ended_in_the_middle(tmp_path, number, code):
    out = tmp_path / "x.gguf"
    out.write_text("old")
    arguments = ["quantize", SMOLLM2, out, "IQ4_NL", "--allow-requantize", "--threads", "1"]
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + TIMEOUT
        while not is_writing(process.pid, tmp_path):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
        process.send_signal(number)
        assert process.wait(TIMEOUT) == code
        assert process.stderr.read() == ""
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def is_writing(pid, folder):
    """Whether a process has begun to fill a file that has no name yet."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(link.readlink()).startswith(f"{folder}/") and link.stat().st_size > 1_000_000:
                return True
        except OSError:  # it has just been closed
            continue
    return False


def test_what_is_wrong_with_a_file_is_told(capsys):
    tensors = (TensorComparison("a", TensorType.F16, TensorType.Q8_0, 0.25, copied=False),)
    logits = LogitsComparison(256, 0.0123456, 0.5, 20.0, 21.0)
    with pytest.raises(typer.Exit) as exit:
        show_verification(Verification(tensors, logits, ("tensor 'b' is missing", "x\x1b[31m")))
    assert exit.value.exit_code == 1
    said = capsys.readouterr()
    assert said.err == "error: tensor 'b' is missing\nerror: x\\x1b[31m\n"
    assert [line.strip() for line in said.out.splitlines()] == [
        "verified: 1 tensors, 0 of them byte-identical",
        "largest error: 25.000% in a (F16 to Q8_0)",
        "predictions for 256 tokens: mean KL divergence 0.01235, same best token 50.0%, perplexity 21.0000 "
        "(source 20.0000)",
    ]


def test_help_says_of_each_recipe_what_is_true(torchgguf):
    """Bits a weight of Llama 3 8B, whose config is public, with an importance matrix."""
    shapes = {"token_embd": (128256, 4096), "output": (128256, 4096), "output_norm": (4096,)}
    layer = {
        "attn_q": (4096, 4096),
        "attn_k": (1024, 4096),
        "attn_v": (1024, 4096),
        "attn_output": (4096, 4096),
        "ffn_gate": (14336, 4096),
        "ffn_up": (14336, 4096),
        "ffn_down": (4096, 14336),
        "attn_norm": (4096,),
        "ffn_norm": (4096,),
    }
    shapes |= {f"blk.{i}.{name}": shape for i in range(32) for name, shape in layer.items()}
    shapes = {f"{name}.weight": shape for name, shape in shapes.items()}
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    }
    assert command.RECIPE_HELP.keys() == RECIPES.keys()
    weights = sum(map(math.prod, shapes.values()))
    for name, (bits, description) in command.RECIPE_HELP.items():
        plan = Quantization(name).plan(metadata, shapes)
        needs_importance = any(choice.needs_importance for choice in plan.values())
        assert ("needs --imatrix" in description) is needs_importance, name
        plan = Quantization(name, imatrix=ImportanceMatrix({}, (), 0, 512)).plan(metadata, shapes)
        kinds = {key: plan[key].type if key in plan else quant_type("F32") for key in shapes}
        size = sum(math.prod(shapes[key]) // k.block_size * k.type_size for key, k in kinds.items())
        assert bits == pytest.approx(8 * size / weights, abs=0.0051), name
    result = torchgguf("quantize", "--help")
    for name, (bits, description) in command.RECIPE_HELP.items():
        assert f"{name}: {bits:.2f}, {description}" in " ".join(result.stdout.split())

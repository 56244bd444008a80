"""`torchgguf convert` on the command line; tests/conversion proves what it writes."""

import re
import subprocess
import warnings
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.cli.conftest import COMMAND, TIMEOUT
from tests.conversion.folders import describe, publish, shard
from tests.peers.hub import Repository, serving
from tests.support import ROOT
from torchgguf.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A Hugging Face folder, and beside it the file that it becomes."""
    place = tmp_path_factory.mktemp("convert")
    describe(publish("llama", place / "Tiny-Chat", torch.bfloat16))
    subprocess.run([*COMMAND, "convert", place / "Tiny-Chat", place / "x.gguf"], check=True, timeout=TIMEOUT)
    return place


def lines(result):
    assert (result.returncode, result.stderr) == (0, "")
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def types(path):
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def test_a_folder(torchgguf, place, tmp_path):
    out = tmp_path / "out.gguf"
    arguments = ["-q", "q8_0", "--tensor-type", r"ffn_(up|gate)=Q4_0", "--verify", "--threads", 1]
    told = lines(torchgguf("convert", place / "Tiny-Chat", out, *arguments))
    found = types(out)
    assert found["blk.1.ffn_up.weight"] == found["blk.2.ffn_gate.weight"] == "Q4_0"
    assert found["blk.1.ffn_down.weight"] == found["output.weight"] == "Q8_0"
    assert any(
        re.fullmatch(r"blk\.\*\.ffn_up\.weight 3 BF16 Q4_0 10,368 [\d.]+% [\d.]+%", line) for line in told
    )
    assert f"{out}: {out.stat().st_size:,} bytes" in told
    weights = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(out).tensors)
    bits = 8 * sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(out).tensors) / weights
    assert any(line.endswith(f": {bits:.3f} bits per weight") for line in told)
    assert "verified: 30 tensors, 7 of them byte-identical" in told
    assert re.fullmatch(r"predictions for 2\d\d tokens: mean KL divergence 0\.0\d+, .*", told[-1])


def test_as_it_is_nothing_is_lost(torchgguf, place, tmp_path):
    told = lines(torchgguf("convert", place / "Tiny-Chat", tmp_path, "--verify"))
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"Tiny-[\w.]+-Chat-BF16\.gguf", path.name)
    assert path.read_bytes() == (place / "x.gguf").read_bytes()
    assert "verified: 30 tensors, 30 of them byte-identical" in told
    assert "mean KL divergence 0.00000, same best token 100.0%" in told[-1]


def test_and_back(torchgguf, place, tmp_path):
    told = lines(torchgguf("convert", place / "x.gguf", tmp_path / "back", "--max-shard-size", "100KB"))
    shards = list((tmp_path / "back").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert told == [
        f"{tmp_path / 'back'}: {sum(p.stat().st_size for p in shards):,} bytes of bfloat16 weights"
    ]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    for name, value in load_file(place / "Tiny-Chat" / "model.safetensors").items():
        assert torch.equal(again[name], value), name
    told = lines(torchgguf("convert", place / "x.gguf", tmp_path / "back", "--dtype", "float32"))
    assert told[0].endswith("of float32 weights")
    assert [path.name for path in (tmp_path / "back").glob("model*")] == ["model.safetensors"]


def test_a_repository(torchgguf, tmp_path):
    """No more is fetched than is needed; the file is called as the repository is."""
    folder = publish("llama", tmp_path / "llama")
    describe(folder)
    shard(folder, "llama")
    torchgguf("convert", folder, tmp_path / "x.gguf")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("pytorch_model.bin", "code.py", "onnx/model.onnx", "original/params.json"):
        files[name] = b"not for us"
    with serving(**{"Tiny-Chat-v2": Repository({"main": files, "odd": {"config.json": b"{}"}})}) as server:
        environment = server.environment(tmp_path / "cache")
        out = tmp_path / "out"
        out.mkdir()
        assert torchgguf("convert", "me/Tiny-Chat-v2", out, env=environment).returncode == 0
        asked = {request.path.rpartition("/")[2] for request in server.requests if request.sent}
        odd = torchgguf("convert", "me/Tiny-Chat-v2", out, "--revision", "odd", env=environment)
        file = torchgguf("convert", "me/Tiny-Chat-v2:x.gguf", out / "back", env=environment)
    assert {"config.json", "README.md", "generation_config.json", "tokenizer.model"} <= asked
    assert not asked & {"pytorch_model.bin", "code.py", "model.onnx", "params.json"}
    (path,) = out.iterdir()
    assert re.fullmatch(r"Tiny-[\w.]+-Chat-v2-F32\.gguf", path.name)
    fields = gguf.GGUFReader(path).fields
    assert fields["general.license"].contents() == "apache-2.0"
    assert types(path) == types(tmp_path / "x.gguf")
    assert re.fullmatch(r"error: .*the config states no model_type\n", odd.stderr)
    assert re.fullmatch(r"error: there is no file x\.gguf in the repository me/Tiny-Chat-v2.*\n", file.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x.gguf", "y.gguf"], "`torchgguf quantize`"),
        (["x.gguf"], "name a folder"),
        (["x.gguf", __file__], "test_convert.py is a file: name a folder"),
        (["x.gguf", "back", "-q", "Q8_0"], "--quantization"),
        (["x.gguf", "back", "--verify"], "--verify"),
        (["x.gguf", "back", "--pre", "gpt-2"], "--pre"),
        (["x.gguf", "back", "--dtype", "float12"], "float12"),
        (["Tiny-Chat", "y.gguf", "--dtype", "float16"], "--dtype"),
        (["Tiny-Chat", "y.gguf", "--max-shard-size", "5GB"], "--max-shard-size"),
        (["Tiny-Chat", "y.gguf", "--imatrix", "i.gguf"], "--quantization"),
        (["Tiny-Chat", "y.gguf", "-q", "Q8_0", "--tensor-type", "ffn"], "PATTERN=TYPE"),
        (["Tiny-Chat", "y.gguf", "--revision", "main"], "--revision"),
        (["Tiny-Chat", "y.gguf", "-q", "Q4_K_MM"], "unknown quantization 'Q4_K_MM'; known: "),
        (["Tiny-Chat", "y.gguf", "-q", "Q8_0", "--tensor-type", "ffn=Q9"], "Q9"),
        (["x.gguf", "back", "--max-shard-size", "much"], "'much' is not a size such as 500M or 2G"),
        (["Tiny-Chat", "nowhere"], "nowhere is neither a .gguf file nor a folder"),
        ([], "SOURCE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(place, capsys, monkeypatch, arguments, said):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command line replaces
    names = [str(place / name) if name in ("x.gguf", "Tiny-Chat") else name for name in arguments]
    before = sorted(place.rglob("*"))
    assert main(["convert", *names]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"error: .*\n", told.err)
    assert said in told.err
    assert sorted(place.rglob("*")) == before


def test_what_cannot_be_done(place, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command line replaces
    out = tmp_path / "out.gguf"
    for arguments, said in [
        ([place / "Tiny-Chat", out, "-q", "Q8_0", "--imatrix", out], r"out\.gguf: No such file"),
        (
            [place / "Tiny-Chat", tmp_path / "no" / "out.gguf"],
            r"cannot write .*no/out\.gguf: there is no folder .*no",
        ),
        ([place / "lost.gguf", out], r"there is no file .*lost\.gguf"),
        ([place], r"is a folder: name a \.gguf file in it \(there: x\.gguf\)"),
        ([place / "lost.gguf", tmp_path / "back"], r"there is no file .*lost\.gguf"),
        ([place / "x.gguf", place / "x.gguf" / "back"], "x.gguf.*: Not a directory"),
        ([ROOT / "README.md", out], r"README\.md is neither a GGUF file nor part of a Hugging Face model"),
        ([ROOT / "README.md", tmp_path / "back"], r"README\.md is neither a GGUF file nor"),
        # Which are no repositories, whatever paths make of them.
        (["./nowhere", out], r"there is no folder \./nowhere"),
        (["nowhere/", out], "there is no folder nowhere/"),
    ]:
        assert main(["convert", *map(str, arguments)]) == 1
        assert re.fullmatch(rf"error: .*{said}.*\n", capsys.readouterr().err)
    assert not any(tmp_path.iterdir())

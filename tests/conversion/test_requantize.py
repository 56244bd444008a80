"""Files of other types: those of llama-quantize, and whatever goes wrong leaves the old ones as they were."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import gguf
import numpy as np
import pytest
import torch

from tests.goldens.requantized import contents
from tests.support import ROOT, SMOLLM2
from torchgguf.container import GGUFError, merge_gguf, open_gguf, split_gguf
from torchgguf.conversion.requantize import plan_requantization, requantize
from torchgguf.packing import ImportanceMatrix, PackingReport, Quantization
from torchgguf.packing.column_statistics import Activations

GOLDENS = json.loads((ROOT / "tests" / "data" / "requantized.json").read_text())


def write_unknown(path):
    """A file by gguf-py, of an architecture that nobody knows."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "mystery")
    writer.add_block_count(2)
    writer.add_array("mystery.secrets", [1, 2, 3])
    writer.add_tensor("token_embd.weight", random.standard_normal((64, 256), np.float32))
    for layer in range(2):
        for name, shape in [("attn_v", (64, 256)), ("ffn_down", (256, 512)), ("ffn_up", (512, 256))]:
            weights = random.standard_normal(shape, np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights.astype(np.float16))
        writer.add_tensor(f"blk.{layer}.odd.weight", random.standard_normal((8, 96), np.float32))
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", random.standard_normal(256, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def unknown(tmp_path):
    return write_unknown(tmp_path / "unknown.gguf")


@pytest.fixture
def written(tmp_path):
    """A folder of its own for what is written."""
    (tmp_path / "written").mkdir()
    return tmp_path / "written"


@pytest.mark.parametrize("name, pure", [("Q4_0", False), ("Q5_1", True)])
def test_a_real_model_becomes_what_llama_quantize_makes_of_it(written, name, pure):
    requantize(SMOLLM2, written / "x.gguf", Quantization(name, pure=pure, allow_requantize=True))
    assert contents(written / "x.gguf") == GOLDENS[name]


def test_an_unknown_architecture(unknown, written):
    report, told = PackingReport(), []
    paths = requantize(
        unknown,
        written / "x.gguf",
        Quantization("Q4_K_M"),
        report=report,
        progress=lambda *counts: told.append(counts),
    )
    assert paths == [written / "x.gguf"]
    old, new = gguf.GGUFReader(unknown), gguf.GGUFReader(paths[0])
    types = {tensor.name: tensor.tensor_type.name for tensor in new.tensors}
    assert types == {
        "token_embd.weight": "Q6_K",
        **{f"blk.{i}.attn_norm.weight": "F32" for i in range(2)},
        **{f"blk.{i}.odd.weight": "Q5_0" for i in range(2)},  # 96 weights a row are no block of Q4_K
        **{f"blk.0.{name}.weight": "Q4_K" for name in ("attn_v", "ffn_down", "ffn_up")},
        **{f"blk.1.{name}.weight": "Q6_K" for name in ("attn_v", "ffn_down")},  # of the last eighth
        "blk.1.ffn_up.weight": "Q4_K",
    }
    assert [tensor.name for tensor in new.tensors] == [tensor.name for tensor in old.tensors]
    for before, after in zip(old.tensors, new.tensors, strict=True):
        numbers = before.data.astype(np.float32).reshape(-1)
        found = gguf.dequantize(after.data, after.tensor_type).reshape(-1)
        error = np.sqrt(((found - numbers) ** 2).mean() / (numbers**2).mean())
        assert error == pytest.approx(report.tensors[before.name].error, rel=1e-4, abs=1e-7)
        assert error < 0.1
    fields = {key: field.contents() for key, field in new.fields.items() if not key.startswith("GGUF.")}
    assert fields == {
        "general.architecture": "mystery",
        "mystery.block_count": 2,
        "mystery.secrets": [1, 2, 3],
        "general.file_type": 15,  # llama.h: LLAMA_FTYPE_MOSTLY_Q4_K_M
        "general.quantization_version": 2,
    }
    size = paths[0].stat().st_size
    assert told[-1] == (size, size)


def test_the_plan_is_what_is_done(unknown, written):
    quantization = Quantization("Q4_K_M", overrides=(("ffn_up", "Q8_0"),), output_type="F16")
    plan = plan_requantization(unknown, quantization)
    assert plan.obstacle is None
    requantize(unknown, written / "x.gguf", quantization)
    with open_gguf(written / "x.gguf") as file:
        assert {name: (info.type, info.nbytes) for name, info in file.tensors.items()} == {
            name: (tensor.type, tensor.nbytes) for name, tensor in plan.report.tensors.items()
        }
        assert {name for name, info in file.tensors.items() if info.type.name == "Q8_0"} == {
            "blk.0.ffn_up.weight",
            "blk.1.ffn_up.weight",
        }
    assert [tensor.name for tensor in plan.report.fallbacks] == ["blk.0.odd.weight", "blk.1.odd.weight"]


def test_tables_of_integers_stay(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "mystery")
    writer.add_tensor("table.weight", np.arange(64 * 256, dtype=np.int32).reshape(64, 256))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plan = plan_requantization(tmp_path / "x.gguf", Quantization("Q4_K_M"))
    requantize(tmp_path / "x.gguf", tmp_path / "y.gguf", "Q4_K_M")
    (before,), (after,) = (gguf.GGUFReader(tmp_path / name).tensors for name in ("x.gguf", "y.gguf"))
    assert after.data.tobytes() == before.data.tobytes()
    assert plan.report.tensors["table.weight"].type.name == after.tensor_type.name == "I32"


def test_a_plan_that_cannot_be_carried_out_says_why(unknown):
    plan = plan_requantization(unknown, Quantization("IQ2_XXS"))
    assert re.match(r"packing tensor '.*' to .* requires importances.*no importance matrix", plan.obstacle)
    assert plan.report.nbytes > 0
    plan = plan_requantization(SMOLLM2, Quantization("Q8_0"))
    assert re.match(r"tensor '.*' is packed to Q4_1 already", plan.obstacle)
    plan = plan_requantization(unknown, Quantization("Q8_0"), keep_split=True)
    assert "there is no split to keep" in plan.obstacle


def test_weights_are_never_packed_to_integers():
    for options in ({"overrides": [("up", "I32")]}, {"output_type": "I8"}, {"token_embedding_type": "I64"}):
        with pytest.raises(ValueError, match=r"I\d+ stores integers: name a type for weights"):
            Quantization("Q8_0", **options)


def test_split_models_are_joined_or_stay_split(unknown, written):
    parts = split_gguf(unknown, written / "in", max_tensors=4)
    (whole,) = requantize(parts[1], written / "whole.gguf", "Q8_0")
    split = requantize(parts[0], written / "out.gguf", Quantization("Q8_0"), keep_split=True)
    assert [path.name for path in split] == [f"out-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    with open_gguf(parts[0]) as before, open_gguf(split[0]) as after:
        assert {n: i.shard for n, i in before.tensors.items()} == {
            n: i.shard for n, i in after.tensors.items()
        }
    merge_gguf(split[2], written / "merged.gguf")
    assert (written / "merged.gguf").read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match="is a complete model: there is no split to keep"):
        requantize(unknown, written / "x.gguf", Quantization("Q8_0"), keep_split=True)


def test_what_is_read_is_not_written_to(unknown, written):
    content = unknown.read_bytes()
    (written / "link.gguf").symlink_to(unknown)
    for out in (unknown, written / "link.gguf", unknown.parent / "written" / ".." / unknown.name):
        with pytest.raises(ValueError, match="is a file to read"):
            requantize(unknown, out, Quantization("Q8_0"))
    parts = split_gguf(unknown, written / "in", max_tensors=4)
    with pytest.raises(ValueError, match="is a file to read"):
        requantize(parts[0], parts[2], Quantization("Q8_0"))
    seen = Activations(torch.ones(1, 256), torch.full((1,), 9))
    ImportanceMatrix({"blk.0.ffn_up.weight": seen}).save(written / "imatrix.gguf")
    with pytest.raises(ValueError, match=r"imatrix\.gguf is a file to read"):
        requantize(unknown, written / "imatrix.gguf", Quantization("Q8_0", imatrix=written / "imatrix.gguf"))
    with pytest.raises(ValueError, match=r"imatrix\.gguf is not a model"):
        requantize(written / "imatrix.gguf", written / "x.gguf", "Q8_0")
    assert "is not a model" in plan_requantization(written / "imatrix.gguf", Quantization("Q8_0")).obstacle
    assert unknown.read_bytes() == content


# Faults: the old file is as it was, and nothing lies beside it.


@pytest.fixture
def old(written):
    path = written / "x.gguf"
    path.write_text("old")
    return path


def assert_untouched(old):
    assert old.read_text() == "old"
    assert list(old.parent.iterdir()) == [old]


def test_weights_that_cannot_be_packed(tmp_path, old):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "mystery")
    writer.add_tensor("good.weight", np.ones((8, 32), np.float32))
    writer.add_tensor("bad.weight", np.full((8, 32), np.nan, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"tensor 'bad\.weight': weights that are infinite or not a number"):
        requantize(tmp_path / "x.gguf", old, Quantization("Q8_0"))
    assert_untouched(old)


def test_input_that_is_not_whole(unknown, old):
    unknown.write_bytes(unknown.read_bytes()[:-1000])
    with pytest.raises(GGUFError, match="is it incomplete"):
        requantize(unknown, old, Quantization("Q8_0"))
    assert_untouched(old)


def test_a_part_that_cannot_be_read(unknown, tmp_path, old):
    parts = split_gguf(unknown, tmp_path / "in", max_tensors=4)
    parts[1].unlink()
    with pytest.raises(GGUFError, match="shard 2 of 3 is missing"):
        requantize(parts[0], old, Quantization("Q8_0"))
    parts[1].mkdir()
    with pytest.raises(GGUFError, match=r"in-00002-of-00003\.gguf: is a folder"):
        requantize(parts[0], old, Quantization("Q8_0"))
    assert_untouched(old)


def test_a_folder_that_is_not_there(unknown, written):
    with pytest.raises(FileNotFoundError, match="missing"):
        requantize(unknown, written / "missing" / "x.gguf", Quantization("Q8_0"))


def in_a_process(code, *arguments):
    program = (
        "import sys\n"
        "from torchgguf.container import GGUFError\n"
        "from torchgguf.conversion.requantize import requantize\n"
        "from torchgguf.packing import Quantization\n" + textwrap.dedent(code)
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_full_disk(unknown, old):
    process = in_a_process(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            requantize(sys.argv[1], sys.argv[2], Quantization("Q8_0"))
        except GGUFError as error:
            print(error)
        """,
        unknown,
        old,
    )
    output, errors = process.communicate(timeout=120)
    assert re.fullmatch(
        r".*writing failed: File too large, it needs \d+ bytes; nothing was changed\n", output
    ), errors
    assert_untouched(old)


@pytest.mark.parametrize("keep_split", [False, True])
@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, -signal.SIGINT)])
def test_a_process_that_is_ended(unknown, tmp_path, old, keep_split, number, code):
    source = split_gguf(unknown, tmp_path / "in", max_tensors=4)[0] if keep_split else unknown
    process = in_a_process(
        """
        import signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def progress(done, total):
            if done > total / 2:
                print("half", flush=True)
                time.sleep(60)
        options = {"keep_split": sys.argv[3] == "True", "progress": progress}
        requantize(sys.argv[1], sys.argv[2], Quantization("Q8_0"), **options)
        """,
        source,
        old,
        keep_split,
    )
    with process:
        assert process.stdout.readline() == "half\n", process.stderr.read()
        process.send_signal(number)
        assert process.wait(60) == code
    assert_untouched(old)

"""Split and merged as llama.cpp's gguf-split does it; its files are made by tests/goldens/gguf_split.py."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from tests.support import ROOT, SMOLLM2
from torchgguf.container import (
    GGUFError,
    Metadata,
    TensorSource,
    TensorType,
    merge_gguf,
    open_gguf,
    plan_split,
    shard_paths,
    split_gguf,
    write_gguf,
    write_split,
)

GOLDENS = ROOT / "tests" / "data" / "gguf_split"
MODEL = GOLDENS / "model.gguf"
SPLITS = {
    "tensors": {"max_tensors": 2},
    "empty-first": {"max_tensors": 3, "tensors_in_first": False},
    "whole": {"max_tensors": 9},
}


def goldens(name):
    return sorted(GOLDENS.glob(f"{name}-*"))


@pytest.mark.parametrize("name", SPLITS)
def test_files_are_those_of_gguf_split(tmp_path, name):
    paths = split_gguf(MODEL, tmp_path / name, **SPLITS[name])
    assert [path.name for path in paths] == [golden.name for golden in goldens(name)]
    for path, golden in zip(paths, goldens(name), strict=True):
        assert path.read_bytes() == golden.read_bytes()
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("name", SPLITS)
def test_what_gguf_split_has_split_is_merged_to_what_it_was(tmp_path, name):
    merge_gguf(goldens(name)[-1], tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == MODEL.read_bytes()


def test_a_real_model_by_size_and_back(tmp_path):
    paths = split_gguf(SMOLLM2, tmp_path / "smollm2", max_bytes=40_000_000)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert digests == json.loads((GOLDENS / "smollm2.json").read_text())
    merge_gguf(paths[0], tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == SMOLLM2.read_bytes()


@pytest.mark.slow
def test_llama_cpp_runs_what_we_have_split(tmp_path):
    from tests.peers.llama_cpp import greedy_text

    first, *_ = split_gguf(SMOLLM2, tmp_path / "x", max_bytes=40_000_000)
    prompt = "The capital of France is"
    assert greedy_text(first, prompt, 8) == greedy_text(SMOLLM2, prompt, 8)


def test_what_is_split_can_be_split_anew(tmp_path):
    split_gguf(goldens("empty-first")[0], tmp_path / "tensors", max_tensors=2)
    for golden in goldens("tensors"):
        assert (tmp_path / golden.name).read_bytes() == golden.read_bytes()


def test_the_prefix_may_be_a_name_of_a_file(tmp_path):
    paths = split_gguf(MODEL, tmp_path / "v1.5.gguf", max_tensors=9)
    assert paths == [tmp_path / "v1.5-00001-of-00001.gguf"]


def test_the_alignment_holds_in_all_files(tmp_path):
    write_gguf(tmp_path / "x.gguf", {}, {"a": torch.ones(3), "b": torch.ones(5)}, alignment=256)
    paths = split_gguf(tmp_path / "x.gguf", tmp_path / "part", max_tensors=1)
    for path in paths:
        (shard,) = [info for info in open_gguf(path).tensors.values() if info.shard == paths.index(path)]
        assert shard.offset % 256 == 0
        assert path.stat().st_size % 256 == 0
    merge_gguf(paths[0], tmp_path / "y.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "y.gguf").read_bytes()


def test_progress_is_told_over_all_files(tmp_path):
    told = []
    paths = split_gguf(MODEL, tmp_path / "x", max_tensors=2, progress=lambda *counts: told.append(counts))
    total = sum(path.stat().st_size for path in paths)
    assert told[-1] == (total, total)
    assert {all_in_all for _, all_in_all in told} == {total}
    assert told == sorted(told)


@pytest.mark.parametrize(
    "limits, message",
    [
        ({}, "exactly one of max_bytes and max_tensors is required"),
        ({"max_bytes": 9, "max_tensors": 9}, "exactly one of max_bytes and max_tensors is required"),
        ({"max_tensors": 0}, "must be at least 1"),
        ({"max_bytes": 200}, r"tensor 'blk\.2\.weight' has 512 bytes, but the limit of a file is 200"),
    ],
)
def test_limits_that_cannot_be_kept(tmp_path, limits, message):
    with pytest.raises(ValueError, match=message):
        split_gguf(MODEL, tmp_path / "x", **limits)
    assert not list(tmp_path.iterdir())


def test_more_files_than_can_be_counted():
    source = TensorSource.of(torch.ones(1))
    with pytest.raises(ValueError, match="65536 files are needed, but a split model has at most 65535"):
        plan_split({str(i): source for i in range(2**16)}, max_tensors=1)


def test_files_that_are_there_stay(tmp_path):
    second = shard_paths(tmp_path / "x", 3)[1]
    second.write_text("mine")
    with pytest.raises(FileExistsError, match=r"x-00002-of-00003\.gguf"):
        split_gguf(MODEL, tmp_path / "x", max_tensors=2)
    assert list(tmp_path.iterdir()) == [second]
    assert second.read_text() == "mine"


def test_a_file_that_appears_meanwhile_stays_too(tmp_path):
    second = shard_paths(tmp_path / "x", 3)[1]
    with pytest.raises(FileExistsError, match=r"x-00002-of-00003\.gguf"):
        split_gguf(MODEL, tmp_path / "x", max_tensors=2, progress=lambda *_: second.write_text("mine"))
    assert list(tmp_path.iterdir()) == [second]
    assert second.read_text() == "mine"


def test_what_cannot_be_merged(tmp_path):
    with pytest.raises(
        GGUFError, match=r"model\.gguf: is a complete model in one file: there is nothing to merge"
    ):
        merge_gguf(MODEL, tmp_path / "x.gguf")
    parts = split_gguf(MODEL, tmp_path / "x", max_tensors=2)
    contents = [part.read_bytes() for part in parts]
    with pytest.raises(ValueError, match="is one of the files to merge"):
        merge_gguf(parts[0], parts[2])
    assert [part.read_bytes() for part in parts] == contents
    parts[1].write_bytes(contents[1][:-100])
    with pytest.raises(GGUFError, match=r"x-00002-of-00003\.gguf: tensor .* is it incomplete\?"):
        merge_gguf(parts[0], tmp_path / "y.gguf")
    parts[1].unlink()
    with pytest.raises(GGUFError, match=r"shard 2 of 3 is missing"):
        merge_gguf(parts[0], tmp_path / "y.gguf")
    parts[1].symlink_to("nowhere")
    with pytest.raises(GGUFError, match=r"shard 2 of 3 is missing"):
        merge_gguf(parts[0], tmp_path / "y.gguf")
    assert not (tmp_path / "y.gguf").exists()


def test_a_part_that_shrinks_while_it_is_read(tmp_path):
    """As a disk that fails: the mapping has no bytes behind it any more."""
    write_gguf(tmp_path / "x.gguf", {}, {"a": torch.ones(100_000), "b": torch.ones(100_000)})
    parts = split_gguf(tmp_path / "x.gguf", tmp_path / "part", max_tensors=1)
    (tmp_path / "y.gguf").write_text("old")

    def shrink(done, total):
        os.truncate(parts[1], 4096)

    with pytest.raises(
        GGUFError, match=r"tensor 'b': .*part-00002-of-00002\.gguf: ends here, but was longer"
    ):
        merge_gguf(parts[0], tmp_path / "y.gguf", progress=shrink)
    assert (tmp_path / "y.gguf").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder where nobody may write")
def test_a_folder_where_no_files_can_be_made():
    with pytest.raises(OSError) as raised:
        split_gguf(MODEL, "/proc/self/x", max_tensors=2)
    assert raised.value.filename.endswith("/x-00001-of-00003.gguf")


# All files or none.


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("nameless", [True, False])
def test_an_exception_leaves_nothing(tmp_path, monkeypatch, error, nameless):
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")

    def load():
        raise error("no such weight")

    tensors = {"a": TensorSource.of(torch.ones(1000)), "b": TensorSource((4,), TensorType.F32, load)}
    with pytest.raises(error, match="no such weight"):
        write_split(tmp_path / "x", Metadata(), tensors, [["a"], ["b"]])
    assert not list(tmp_path.iterdir())
    tensors["b"] = tensors["a"]
    written = write_split(tmp_path / "x", Metadata(), tensors, [["a"], ["b"]])
    assert sorted(tmp_path.iterdir()) == written


def in_a_process(code):
    program = "import os, signal, sys\nfrom torchgguf.container import *\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("call, count", [("fsync", 1), ("fsync", 3), ("link", 1)])
def test_a_killed_process_leaves_nothing(tmp_path, call, count):
    done = in_a_process(
        f"""
        real, calls = os.{call}, []
        def deadly(*args, **options):
            calls.append(args)
            if len(calls) == {count}:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        os.{call} = deadly
        split_gguf({str(MODEL)!r}, {str(tmp_path / "x")!r}, max_tensors=2)
        """
    )
    assert done.returncode == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path):
    done = in_a_process(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
        try:
            split_gguf({str(MODEL)!r}, {str(tmp_path / "x")!r}, max_tensors=2)
        except GGUFError as error:
            print(error)
        """
    )
    assert re.fullmatch(r".*x-00001-of-00003\.gguf: writing failed: File too large, .*\n", done.stdout)
    assert not list(tmp_path.iterdir())


def test_a_name_that_cannot_be_given_takes_the_others_back(tmp_path):
    done = in_a_process(
        f"""
        real, calls = os.link, []
        def failing(*args, **options):
            calls.append(args)
            if len(calls) == 3:
                raise OSError(5, "Input/output error")
            return real(*args, **options)
        os.link = failing
        try:
            split_gguf({str(MODEL)!r}, {str(tmp_path / "x")!r}, max_tensors=2)
        except OSError as error:
            print(error)
        """
    )
    assert done.stdout == f"[Errno 5] Input/output error: '{tmp_path / 'x-00001-of-00003.gguf'}'\n"
    assert not list(tmp_path.iterdir())

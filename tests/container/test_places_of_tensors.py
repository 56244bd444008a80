"""Tensors follow each other as llama.cpp demands; where they do not, nobody loads weights from the file."""

import struct
import warnings
from pathlib import Path

import pytest

from tests.conversion.folders import publish
from tests.peers.llama_cpp import greedy_text
from torchgguf import AutoModelForCausalLM, AutoTokenizer
from torchgguf.container import (
    GGUFError,
    GGUFFile,
    GGUFWarning,
    edit_metadata,
    open_gguf,
    split_gguf,
    write_gguf,
)
from torchgguf.conversion import convert_to_gguf, requantize


def rewritten(file: GGUFFile, path: Path, kinds: dict[str, tuple[int, int]], reverse: bool = False) -> None:
    """Write the tensors of a file with other type numbers and sizes in bytes, padded as gguf-py does."""
    raw = file.paths[0].read_bytes()
    first = next(iter(file.tensors)).encode()
    head, infos, data = raw[: raw.index(struct.pack("<Q", len(first)) + first)], [], b""
    for name, info in reversed(file.tensors.items()) if reverse else file.tensors.items():
        kind, size = kinds.get(name, (int(info.type), info.nbytes))
        layout = f"<I{len(info.shape)}QIQ"
        infos.append(
            struct.pack("<Q", len(name))
            + name.encode()
            + struct.pack(layout, len(info.shape), *reversed(info.shape), kind, len(data))
        )
        data += raw[info.offset : info.offset + info.nbytes].ljust(size, b"\0")[:size]
        data += bytes(-len(data) % 32)
    if reverse:
        infos.reverse()
    header = head + b"".join(infos)
    path.write_bytes(header + bytes(-len(header) % 32) + data)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    convert_to_gguf(publish("llama", folder / "hf"), folder / "tiny.gguf", quantization="Q8_0")
    return folder / "tiny.gguf"


def changed(model: Path, path: Path, case: str) -> None:
    """Write the model as another program would, or someone who sorts tensors."""
    name = "blk.0.ffn_up.weight"
    with open_gguf(model) as file:
        info = file.tensors[name]
        rows, columns = info.shape
        kinds = {
            "type 42 of a fork": {name: (42, rows * columns // 64 * 20)},  # 20 bytes in place of 18
            "a gap": {name: (int(info.type), info.nbytes + 64)},
            "another order": {},
        }
        rewritten(file, path, kinds[case], reverse=case == "another order")


@pytest.mark.parametrize("case", ["type 42 of a fork", "a gap", "another order"])
def test_metadata_are_readable_and_weights_are_not(model, tmp_path, case):
    path = tmp_path / "x.gguf"
    changed(model, path, case)
    with pytest.raises(RuntimeError, match="Failed to init server"):
        greedy_text(path, "x", tokens=1)
    with pytest.warns(GGUFWarning, match=r"x\.gguf: tensor '[\w.]+' must begin at byte .*only the metadata"):
        file = open_gguf(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GGUFWarning)
        assert file.metadata == open_gguf(model).metadata
        for use in (
            lambda: file["output_norm.weight"],
            file.sources,
            lambda: AutoModelForCausalLM.from_pretrained(path),
            lambda: requantize(path, tmp_path / "y.gguf", "F16"),
            lambda: split_gguf(path, tmp_path / "y", max_tensors=2),
        ):
            with pytest.raises(GGUFError, match="must begin at byte"):
                use()
        assert AutoTokenizer.from_pretrained(path).encode("a") == AutoTokenizer.from_pretrained(model).encode(
            "a"
        )
        assert edit_metadata(path, {"general.name": file.metadata["general.name"]}).in_place
        with pytest.raises(GGUFError, match="must begin at byte"):
            edit_metadata(path, {"general.author": "x" * 10_000})
    assert [place.name for place in tmp_path.iterdir()] == ["x.gguf"]


def test_the_message_names_the_type_whose_blocks_do_not_fit(model, tmp_path):
    changed(model, tmp_path / "x.gguf", "type 42 of a fork")
    with pytest.warns(
        GGUFWarning, match="'blk.0.ffn_up.weight' were not Q2_0: another program may have written"
    ):
        open_gguf(tmp_path / "x.gguf")


def test_bytes_behind_the_last_tensor_are_allowed(model, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(model.read_bytes() + bytes(100))
    with pytest.warns(GGUFWarning, match="bytes belong to no tensor"):
        ours = AutoModelForCausalLM.from_pretrained(path)
    assert ours is not None
    assert greedy_text(path, "x", tokens=1) is not None


def test_what_we_write_follows_the_rule(model, tmp_path):
    with open_gguf(model) as file:
        write_gguf(tmp_path / "x.gguf", file.metadata, dict(reversed(file.sources().items())), alignment=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_gguf(tmp_path / "x.gguf").sources()) > 10

"""Merging adapters into files, beside PEFT's own merging and ggml's rounding."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from gguf.quants import dequantize
from peft import PeftModel
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference
from tests.training.adapting import IDS, adapted
from torchgguf import AutoModelForCausalLM, Quantization, open_gguf, save_gguf, write_gguf
from torchgguf.container import GGUFFile
from torchgguf.conversion.requantize import requantize
from torchgguf.training.adapters import AdapterError, convert_adapter
from torchgguf.training.merging import MergeReport, merge_into_gguf

TARGETS = ["q_proj", "down_proj"]


class Files(NamedTuple):
    """A plain file, the same packed, an adapter of `TARGETS`, and the logits with it."""

    plain: Path
    packed: Path
    adapter: Path
    logits: torch.Tensor


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    place = tmp_path_factory.mktemp("merging")
    counterpart(reference(CASES["llama"])).save_gguf(place / "plain.gguf")
    requantize(place / "plain.gguf", place / "packed.gguf", "Q8_0")
    peft = adapted(reference(CASES["llama"]), target_modules=TARGETS)
    peft.save_pretrained(place / "adapter")
    with torch.no_grad():
        logits = peft(input_ids=IDS).logits
    return Files(place / "plain.gguf", place / "packed.gguf", place / "adapter", logits)


def is_changed(name: str) -> bool:
    return "attn_q." in name or "ffn_down." in name


def plain(file: GGUFFile, name: str) -> torch.Tensor:
    """A tensor as gguf-py unpacks it, in float64."""
    return torch.from_numpy(dequantize(file[name].numpy(), file.tensors[name].type)).double()


@torch.no_grad()
def test_logits_of_a_merged_file(files, tmp_path):
    merge_into_gguf(files.plain, files.adapter, tmp_path / "merged.gguf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged.gguf")
    assert_close(model(IDS).logits, files.logits, atol=2e-4, rtol=0)
    theirs = PeftModel.from_pretrained(reference(CASES["llama"]), files.adapter).merge_and_unload()
    save_gguf(theirs, tmp_path / "theirs.gguf")
    with open_gguf(tmp_path / "merged.gguf") as ours, open_gguf(tmp_path / "theirs.gguf") as expected:
        for name in expected:
            assert_close(ours[name], expected[name], atol=1e-6, rtol=0)


def test_only_what_changes_is_packed(files, tmp_path):
    report = merge_into_gguf(files.packed, files.adapter, tmp_path / "merged.gguf")
    assert report.tensors.keys() == {name for name in open_gguf(files.packed) if is_changed(name)}
    with open_gguf(files.packed) as before, open_gguf(tmp_path / "merged.gguf") as after:
        assert after.metadata == before.metadata
        assert after.metadata.types == before.metadata.types
        assert list(after.tensors) == list(before.tensors)
        for name, info in before.tensors.items():
            assert after.tensors[name].type == info.type
            assert torch.equal(after[name], before[name]) != is_changed(name)


def test_the_report_is_right(files, tmp_path):
    """Its figures follow from the files: plain, merged without packing, packed."""
    merge_into_gguf(files.packed, files.adapter, tmp_path / "wide.gguf", quantization="F32")
    report = merge_into_gguf(files.packed, files.adapter, tmp_path / "merged.gguf", quantization="Q4_0")
    with (
        open_gguf(files.packed) as old,
        open_gguf(tmp_path / "wide.gguf") as wide,
        open_gguf(tmp_path / "merged.gguf") as new,
    ):
        for name, tensor in report.tensors.items():
            assert (tensor.source_type.name, tensor.type.name) == ("Q8_0", "Q4_0")
            wanted = plain(wide, name) - plain(old, name)
            found = plain(new, name) - plain(old, name)
            error = (plain(new, name) - plain(wide, name)).norm() / plain(wide, name).norm()
            assert tensor.error == pytest.approx(error.item(), rel=1e-3)
            assert tensor.kept == pytest.approx(
                (found * wanted).sum().item() / (wanted**2).sum().item(), rel=1e-3
            )
            cosine = torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)
            assert tensor.cosine == pytest.approx(cosine.item(), rel=1e-3)


def test_lost_changes_are_reported(files, tmp_path, caplog):
    """What is far smaller than the steps of a type is swallowed; plain types keep it."""
    requantize(files.plain, tmp_path / "small.gguf", Quantization("Q4_0", pure=True))
    tiny = {files.adapter: 0.001}
    report = merge_into_gguf(tmp_path / "small.gguf", tiny, tmp_path / "merged.gguf")
    assert len(report.lost) == len(report.tensors) > 0
    (record,) = caplog.records
    assert "packing lost changes in 6 of 6 tensors" in record.message
    assert "\n" not in record.message
    caplog.clear()
    overrides = {"attn_q": "F32", ".": "F16"}
    report = merge_into_gguf(tmp_path / "small.gguf", tiny, tmp_path / "merged.gguf", overrides=overrides)
    assert {tensor.type.name for tensor in report.tensors.values()} == {"F32", "F16"}
    assert not report.lost
    assert not caplog.records


def test_rows_without_change_keep_their_bytes(files, tmp_path):
    """K-quants search their scales anew: packed again, the same weights get other bytes."""
    convert_adapter(files.adapter, tmp_path / "adapter.gguf", files.plain)
    with open_gguf(tmp_path / "adapter.gguf") as file:
        tensors = {name: file[name].clone() for name in file}
        metadata = file.metadata
    for name, tensor in tensors.items():
        if name.endswith("lora_b"):
            tensor[3:] = 0
        if "ffn_down" in name:
            tensor.zero_()
    write_gguf(tmp_path / "few.gguf", metadata, tensors)
    report = MergeReport()
    merge_into_gguf(files.packed, tmp_path / "few.gguf", tmp_path / "merged.gguf", report=report)
    assert sorted(report.unchanged) == [f"blk.{i}.ffn_down.weight" for i in range(3)]
    with open_gguf(files.packed) as before, open_gguf(tmp_path / "merged.gguf") as after:
        for name in report.unchanged:
            assert torch.equal(before[name], after[name])
        for name in report.tensors:
            assert torch.equal(before[name][3:], after[name][3:])
            assert not torch.equal(before[name][:3], after[name][:3])


def test_several_adapters_and_factors(files, tmp_path):
    convert_adapter(files.adapter, tmp_path / "adapter.gguf", files.plain)
    halves = {files.adapter: 0.75, tmp_path / "adapter.gguf": 0.25}
    merge_into_gguf(files.plain, halves, tmp_path / "halves.gguf")
    merge_into_gguf(files.plain, [files.adapter], tmp_path / "whole.gguf")
    with open_gguf(tmp_path / "halves.gguf") as halves, open_gguf(tmp_path / "whole.gguf") as whole:
        for name in whole:
            assert_close(halves[name], whole[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": {"attn_k": "Q8_0"}}, "the pattern 'attn_k' matches no tensor"),
        ({"overrides": {"(": "Q8_0"}}, "the pattern '\\(' is invalid"),
        ({"quantization": "Q9"}, "Q9"),
    ],
    ids=str,
)
def test_invalid_options(files, tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        merge_into_gguf(files.packed, files.adapter, tmp_path / "merged.gguf", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_files_to_read_are_not_replaced(files, tmp_path):
    convert_adapter(files.adapter, tmp_path / "adapter.gguf", files.plain)
    for out in (files.packed, tmp_path / "adapter.gguf"):
        before = out.read_bytes()
        with pytest.raises(ValueError, match="is a file to read"):
            merge_into_gguf(files.packed, tmp_path / "adapter.gguf", out)
        assert out.read_bytes() == before


def test_another_model_is_refused(files, tmp_path):
    counterpart(reference(CASES["qwen2"])).save_gguf(tmp_path / "qwen2.gguf")
    convert_adapter(files.adapter, tmp_path / "adapter.gguf", files.plain)
    with pytest.raises(AdapterError, match=r"belongs to a llama model, but .* is a qwen2 model"):
        merge_into_gguf(tmp_path / "qwen2.gguf", tmp_path / "adapter.gguf", tmp_path / "merged.gguf")
    assert not (tmp_path / "merged.gguf").exists()

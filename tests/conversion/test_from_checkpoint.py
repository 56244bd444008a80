"""Folders become the files that llama.cpp's converter makes of them, and that a loaded model is saved as."""

import json
import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.conversion.folders import describe, pickle, publish, rule_of, shard
from tests.models.folders import change_config, change_tensors
from tests.models.test_broken_checkpoints import BROKEN
from tests.models.tiny import CASES, UNWRITABLE, reference
from tests.peers.llama_cpp import convert_folders
from tests.support import LLAMA_CPP
from torchgguf.conversion.from_checkpoint import convert_to_gguf
from torchgguf.models import AutoModelForCausalLM
from torchgguf.packing import ImportanceMatrix, PackingReport, Quantization
from torchgguf.packing.column_statistics import Activations
from torchgguf.tokenization import AutoTokenizer

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SOME = ("llama", "qwen2moe-tied", "gpt2", "phi-long", "bloom-odd-heads")  # one of each way to lie in a file


def by_way_of_a_model(folder: Path, path: Path, **options: object) -> bytes:
    """The file that a model is saved as."""
    tokenizer = AutoTokenizer.from_pretrained(folder, pre=options.pop("pre", None))
    AutoModelForCausalLM.from_pretrained(folder).save_gguf(path, tokenizer=tokenizer, **options)
    return path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_the_file_of_every_architecture(name, tmp_path):
    folder, pre = publish(name, tmp_path / "Tiny-7B-v2"), rule_of(name)
    convert_to_gguf(folder, tmp_path / "streamed.gguf", pre=pre)
    streamed = (tmp_path / "streamed.gguf").read_bytes()
    assert streamed == by_way_of_a_model(folder, tmp_path / "saved.gguf", pre=pre)


@pytest.mark.parametrize("quantization", [None, "F32", "Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("name", SOME)
def test_the_file_of_halves(name, dtype, quantization, tmp_path):
    folder, pre = publish(name, tmp_path / "tiny", dtype), rule_of(name)
    convert_to_gguf(folder, tmp_path / "streamed.gguf", pre=pre, quantization=quantization)
    streamed = (tmp_path / "streamed.gguf").read_bytes()
    assert streamed == by_way_of_a_model(folder, tmp_path / "saved.gguf", pre=pre, quantization=quantization)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("kept", ["in several files", "pickled", "pickled before torch 1.6"])
def test_however_weights_are_kept(name, kept, tmp_path):
    folder, pre = publish(name, tmp_path / "tiny"), rule_of(name)
    convert_to_gguf(folder, tmp_path / "one.gguf", pre=pre)
    if kept == "in several files":
        shard(folder, name)
        assert len(list(folder.glob("*.safetensors"))) > 3
    else:
        pickle(folder, zipped=kept == "pickled")
    convert_to_gguf(folder, tmp_path / "other.gguf", pre=pre)
    assert (tmp_path / "other.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(
    not LLAMA_CPP.exists(), reason="llama.cpp's converter is not there: python scripts/fetch_models.py"
)
def test_the_file_is_that_of_llama_cpp(tmp_path):
    """As it takes types by itself (`--outtype auto`); all that is said of the model included."""
    names = {"llama-llama3": torch.bfloat16, "qwen2": torch.float16, "mistral": torch.bfloat16}
    folders = {name: publish(name, tmp_path / f"Tiny-{name}-v1.2", dtype) for name, dtype in names.items()}
    for name, folder in folders.items():
        describe(folder, temperature=1 if name == "mistral" else 0.7)
        (tmp_path / name).mkdir()
    change_config(folders["qwen2"], dtype="float32")  # finetunes lie
    convert_folders(
        (folder, tmp_path / name, "auto", rule_of(name) or "") for name, folder in folders.items()
    )
    for name, folder in folders.items():
        (path,) = (tmp_path / name).iterdir()  # which is named by the converter, and so it is by us
        (tmp_path / f"ours-{name}").mkdir()
        written = convert_to_gguf(folder, tmp_path / f"ours-{name}", pre=rule_of(name))
        assert written == tmp_path / f"ours-{name}" / path.name
        ours, theirs = gguf.GGUFReader(written), gguf.GGUFReader(path)
        tensors = {tensor.name: tensor for tensor in ours.tensors}
        assert tensors.keys() == {tensor.name for tensor in theirs.tensors}
        for expected in theirs.tensors:
            actual = tensors[expected.name]
            assert (actual.tensor_type, list(actual.shape)) == (expected.tensor_type, list(expected.shape))
            if expected.name.startswith("rope_"):  # calculated, in another order of operations
                np.testing.assert_allclose(actual.data, expected.data, rtol=1e-6)
            else:
                assert actual.data.tobytes() == expected.data.tobytes(), expected.name
        for key, field in theirs.fields.items():
            if not key.startswith("GGUF."):
                assert ours.fields[key].contents() == field.contents(), key
                assert ours.fields[key].types == field.types, key
        assert {"general.license", "general.sampling.temp", "tokenizer.chat_template"} <= ours.fields.keys()


def test_each_weight_in_its_own_dtype(tmp_path):
    """What a model of one dtype would round is as exact as in the checkpoint."""
    folder = publish("qwen2", tmp_path / "tiny", torch.bfloat16)
    exact = reference(CASES["qwen2"]).state_dict()
    wide = ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"]
    change_tensors(folder, lambda tensors: tensors.update({name: exact[name].clone() for name in wide}))
    file = gguf.GGUFReader(convert_to_gguf(folder, tmp_path / "x.gguf", pre="qwen2"))
    tensors = {tensor.name: tensor for tensor in file.tensors}
    for name, original in {"output_norm.weight": wide[0], "blk.1.ffn_up.weight": wide[1]}.items():
        assert tensors[name].tensor_type == gguf.GGMLQuantizationType.F32
        np.testing.assert_array_equal(tensors[name].data, exact[original].numpy())
    assert tensors["blk.0.ffn_up.weight"].tensor_type == gguf.GGMLQuantizationType.BF16


def test_types_are_those_of_the_weights_whatever_the_config_says(tmp_path):
    folder = publish("llama", tmp_path / "tiny")
    change_config(folder, dtype="float16")
    file = gguf.GGUFReader(convert_to_gguf(folder, tmp_path / "x.gguf"))
    assert {tensor.tensor_type for tensor in file.tensors} == {gguf.GGMLQuantizationType.F32}
    assert file.fields["general.file_type"].contents() == gguf.LlamaFileType.ALL_F32


def test_doubles_become_singles(tmp_path):
    """As llama.cpp's converter makes them; its runtime knows no others."""
    folder = publish("llama", tmp_path / "tiny", torch.float64)
    file = gguf.GGUFReader(convert_to_gguf(folder, tmp_path / "x.gguf"))
    assert {tensor.tensor_type for tensor in file.tensors} == {gguf.GGMLQuantizationType.F32}
    up = next(tensor for tensor in file.tensors if tensor.name == "blk.1.ffn_up.weight")
    expected = reference(CASES["llama"]).state_dict()["model.layers.1.mlp.up_proj.weight"]
    np.testing.assert_array_equal(up.data, expected.numpy())


def test_however_the_folder_is_named(tmp_path, monkeypatch):
    """What is said of the model is found by a relative path, and by that of a link, too."""
    folder = publish("llama", tmp_path / "Tiny-Chat-v2")
    describe(folder)
    whole = convert_to_gguf(folder, tmp_path / "x.gguf").read_bytes()
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to(folder)
    assert convert_to_gguf("link", "x.gguf").read_bytes() == whole
    monkeypatch.chdir(folder)
    assert convert_to_gguf(".", "../x.gguf").read_bytes() == whole
    assert gguf.GGUFReader("../x.gguf").fields["general.license"].contents() == "apache-2.0"


def test_a_report_of_what_became_what(tmp_path):
    folder = publish("llama", tmp_path / "tiny", torch.bfloat16)
    report = PackingReport()
    path = convert_to_gguf(folder, tmp_path / "x.gguf", quantization="Q8_0", report=report)
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert report.tensors.keys() == written.keys()
    for name, row in report.tensors.items():
        assert row.type == written[name].tensor_type
        assert row.nbytes == written[name].n_bytes
    up = (
        reference(CASES["llama"]).state_dict()["model.layers.0.mlp.up_proj.weight"].bfloat16().float().numpy()
    )
    error = gguf.quants.dequantize(written["blk.0.ffn_up.weight"].data, gguf.GGMLQuantizationType.Q8_0) - up
    expected = np.sqrt(np.square(error).sum() / np.square(up).sum())
    assert report.tensors["blk.0.ffn_up.weight"].error == pytest.approx(expected, rel=1e-4)
    report = PackingReport()
    convert_to_gguf(folder, tmp_path / "x.gguf", report=report)
    assert report.tensors.keys() == written.keys()
    assert {row.error for row in report.tensors.values()} == {0.0}


def test_importances_count(tmp_path):
    """An expert's weights by its own, as where a model is saved."""
    folder = publish("qwen2moe", tmp_path / "tiny")
    seen = Activations(torch.rand(7, 64).square() + 1e-3, torch.full((7,), 9))
    importances = ImportanceMatrix({f"blk.{i}.ffn_gate_exps.weight": seen for i in range(3)})
    packed = {"pre": "qwen2", "quantization": "Q4_K_M"}
    report = PackingReport()
    importances.save(tmp_path / "imatrix.gguf")
    convert_to_gguf(folder, tmp_path / "x.gguf", imatrix=tmp_path / "imatrix.gguf", report=report, **packed)
    saved = by_way_of_a_model(folder, tmp_path / "y.gguf", imatrix=tmp_path / "imatrix.gguf", **packed)
    assert (tmp_path / "x.gguf").read_bytes() == saved
    weighted = {name for name, row in report.tensors.items() if row.weighted_error is not None}
    assert weighted == set(importances)
    convert_to_gguf(folder, tmp_path / "z.gguf", **packed)
    assert (tmp_path / "z.gguf").read_bytes() != saved
    convert_to_gguf(
        folder, tmp_path / "z.gguf", pre="qwen2", quantization=Quantization("Q4_K_M"), imatrix=importances
    )
    assert types_and_data(tmp_path / "z.gguf") == types_and_data(tmp_path / "x.gguf")
    with pytest.raises(ValueError, match="imatrix= requires quantization="):
        convert_to_gguf(folder, tmp_path / "z.gguf", imatrix=importances)


def types_and_data(path: Path) -> dict[str, tuple[str, bytes]]:
    tensors = gguf.GGUFReader(path).tensors
    return {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in tensors}


def test_what_is_read_is_not_written(llama, tmp_path):
    """Neither the importance matrix nor the weights, by whatever path."""
    folder = shutil.copytree(llama, tmp_path / "llama")
    known = ImportanceMatrix({"blk.0.ffn_up.weight": Activations(torch.ones(1, 64), torch.full((1,), 9))})
    known.save(tmp_path / "imatrix.gguf")
    (tmp_path / "link").symlink_to(tmp_path)
    weights = folder / "model.safetensors"
    before = [(tmp_path / "imatrix.gguf").read_bytes(), weights.read_bytes()]
    with pytest.raises(ValueError, match=r"imatrix\.gguf is a file to read"):
        packed = Quantization("Q8_0", imatrix=tmp_path / "imatrix.gguf")
        convert_to_gguf(folder, tmp_path / "link" / "imatrix.gguf", quantization=packed)
    with pytest.raises(ValueError, match=r"model\.safetensors is a file to read"):
        convert_to_gguf(weights, weights)
    assert [(tmp_path / "imatrix.gguf").read_bytes(), weights.read_bytes()] == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_no_file_of_the_checkpoint_is_replaced(llama, tmp_path, name):
    folder = shutil.copytree(llama, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder / name)
    for target in (folder / name, tmp_path / "link"):
        with pytest.raises(ValueError, match="is a file to read and would be lost"):
            convert_to_gguf(folder, target)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for _ in range(2):  # which is not read
        convert_to_gguf(folder, folder / "packed")


def test_a_gguf_file_is_no_checkpoint(llama, tmp_path):
    path = convert_to_gguf(llama, tmp_path / "x.gguf")
    for place in (path, tmp_path):
        with pytest.raises(ValueError, match="not a Hugging Face model: use `requantize`"):
            convert_to_gguf(place, tmp_path / "y.gguf")
    assert not (tmp_path / "y.gguf").exists()


def test_progress_counts_the_bytes_of_the_file(tmp_path):
    folder, told = publish("llama", tmp_path / "tiny"), []
    path = convert_to_gguf(folder, tmp_path / "x.gguf", progress=lambda *step: told.append(step))
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert told == sorted(told)


@pytest.mark.parametrize(("quantization", "ending"), [(None, "BF16"), ("q4_k_m", "Q4_K_M"), ("F16", "F16")])
def test_usual_names(tmp_path, monkeypatch, quantization, ending):
    folder = publish("llama", tmp_path / "Tiny-Chat-v2.1", torch.bfloat16)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    path = convert_to_gguf(folder, quantization=quantization)
    assert path.is_file() and re.fullmatch(rf"Tiny-[\w.]+-Chat-v2.1-{ending}\.gguf", str(path))
    assert convert_to_gguf(folder, tmp_path, quantization=quantization) == tmp_path / path
    assert (tmp_path / path).read_bytes() == path.read_bytes()


def test_further_metadata_win(tmp_path):
    folder = publish("llama", tmp_path / "tiny")
    stated = {"general.name": "Mine", "general.author": "me"}
    fields = gguf.GGUFReader(convert_to_gguf(folder, tmp_path / "x.gguf", metadata=stated)).fields
    assert {key: fields[key].contents() for key in stated} == stated


def test_without_a_tokenizer(tmp_path):
    folder = publish("llama", tmp_path / "tiny")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer.*--no-tokenizer"):
        convert_to_gguf(folder, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()
    file = gguf.GGUFReader(convert_to_gguf(folder, tmp_path / "x.gguf", tokenizer=False))
    assert file.fields["tokenizer.ggml.model"].contents() == "no_vocab"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    with pytest.raises(ValueError, match=r"pre= \(--pre\) requires a tokenizer"):
        convert_to_gguf(folder, tmp_path / "x.gguf", tokenizer=False, pre="llama3")


def test_a_splitting_rule_that_is_not_known(tmp_path):
    folder = publish("qwen2", tmp_path / "tiny")
    pipeline = json.loads((folder / "tokenizer.json").read_text())
    vowels = {"type": "Split", "pattern": {"Regex": "[aeiou]"}, "behavior": "Isolated", "invert": False}
    steps = [vowels, {**pipeline["pre_tokenizer"], "use_regex": False}]
    pipeline["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    (folder / "tokenizer.json").write_text(json.dumps(pipeline))
    with pytest.raises(ValueError, match=r"no known rule splits texts .*pre="):
        convert_to_gguf(folder, tmp_path / "x.gguf")
    file = gguf.GGUFReader(convert_to_gguf(folder, tmp_path / "x.gguf", pre="qwen2"))
    assert file.fields["tokenizer.ggml.pre"].contents() == "qwen2"


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification", "QuestionAnswering"])
def test_other_heads(tmp_path, kind):
    reference(CASES["llama"], f"AutoModelFor{kind}").save_pretrained(tmp_path / "tiny")
    with pytest.raises(ValueError, match=rf"contains a LlamaFor{kind}, but .*LlamaForCausalLM"):
        convert_to_gguf(tmp_path / "tiny", tmp_path / "x.gguf", tokenizer=False)


def test_without_a_head(tmp_path):
    """What is left out is an error; a head that has the embedding's weights is not left out."""
    for name in ("llama", "gpt2"):
        model = reference(CASES[name])
        model.base_model.save_pretrained(tmp_path / name)
        assert not [tensor for tensor in load_file(tmp_path / name / "model.safetensors") if "head" in tensor]
    with pytest.raises(ValueError, match=r"missing tensors: lm_head\.weight$"):
        convert_to_gguf(tmp_path / "llama", tmp_path / "x.gguf", tokenizer=False)
    convert_to_gguf(tmp_path / "gpt2", tmp_path / "x.gguf", tokenizer=False)
    ids = torch.randint(0, 400, (2, 6), generator=torch.Generator().manual_seed(0))
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, reference(CASES["gpt2"])(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["bloom-post-layernorm", "qwen2moe-normalised"])
def test_what_no_file_can_say(name, tmp_path):
    case = UNWRITABLE[name]
    reference(case).save_pretrained(tmp_path / "tiny")
    (field,) = case.config.keys() - CASES["qwen2moe"].config.keys()
    with pytest.raises(ValueError, match=f"GGUF does not support {field}=True"):
        convert_to_gguf(tmp_path / "tiny", tmp_path / "x.gguf", tokenizer=False)
    assert not (tmp_path / "x.gguf").exists()


def test_a_vocabulary_larger_than_the_model(tmp_path):
    folder = publish("llama", tmp_path / "tiny")
    small = transformers.AutoModelForCausalLM.from_pretrained(folder)
    small.resize_token_embeddings(300)
    small.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"400 tokens, but the model only 300 embeddings"):
        convert_to_gguf(folder, tmp_path / "x.gguf")


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A folder, to be copied and broken."""
    return publish("llama", tmp_path_factory.mktemp("folders") / "llama")


ALIKE = {name: case for name, case in BROKEN.items() if name != "another model_type"}  # than was asked for


@pytest.mark.parametrize(("harm", "kind", "words"), ALIKE.values(), ids=ALIKE.keys())
def test_broken_checkpoints(llama, tmp_path, harm, kind, words):
    """The same one line as where a model is loaded, and no file; one that is there stays."""
    folder = shutil.copytree(llama, tmp_path / "llama")
    (tmp_path / "x.gguf").write_bytes(b"old")
    harm(folder)
    with pytest.raises(kind, match=words) as caught:
        convert_to_gguf(folder, tmp_path / "x.gguf")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "x.gguf").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"llama", "x.gguf"}

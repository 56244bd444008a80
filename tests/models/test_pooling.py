"""How a model makes vectors of texts is read from files and folders, kept, and written."""

import json

import pytest

import torchgguf
from tests.models.test_bert import CASES as ENCODERS
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import run_converter
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import AutoModel, AutoModelForCausalLM, convert_to_checkpoint, convert_to_gguf, open_gguf


@pytest.mark.parametrize("number, name", [*enumerate(["none", "mean", "cls", "last", "rank"])])
def test_files_of_every_architecture_state_it(number, name, tmp_path):
    model = counterpart(reference(CASES["llama"]))
    model.save_gguf(tmp_path / "x.gguf", metadata={"llama.pooling_type": number})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    assert model.pooling == name
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()
    model.pooling = "mean"
    model.save_gguf(tmp_path / "mean.gguf")
    assert AutoModel.from_pretrained(tmp_path / "mean.gguf").pooling == "mean"
    model.pooling = None
    model.save_gguf(tmp_path / "silent.gguf")
    assert AutoModel.from_pretrained(tmp_path / "silent.gguf").pooling is None


STATED = {
    "mean": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    "cls": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    "last": {"pooling_mode": "lasttoken"},
}


def folder_of_sentence_transformers(folder, pooling):
    """A tiny BERT, and how sentence-transformers pools its states."""
    reference(ENCODERS["bert"], "AutoModel").save_pretrained(folder)
    add_tokenizer(folder, "bert")
    kinds = {"0_Transformer": "models.Transformer", "1_Pooling": "models.Pooling", "2_N": "models.Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize("name", STATED)
def test_folders_of_sentence_transformers(name, tmp_path):
    """The file states what the converter's does."""
    folder_of_sentence_transformers(tmp_path / "hf", STATED[name])
    assert AutoModel.from_pretrained(tmp_path / "hf").pooling == name
    convert_to_gguf(tmp_path / "hf", tmp_path / "x.gguf")
    with open_gguf(tmp_path / "x.gguf") as file:
        ours = file.metadata["bert.pooling_type"], file.metadata.types["bert.pooling_type"]
    model = AutoModel.from_pretrained(tmp_path / "x.gguf")
    assert model.pooling == name
    model.save_pretrained(tmp_path / "saved")
    convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "back")
    for folder in ("saved", "back"):
        assert AutoModel.from_pretrained(tmp_path / folder).pooling == name
    if LLAMA_CPP.exists():
        run_converter([str(tmp_path / "hf"), "--outfile", str(tmp_path / "theirs.gguf")], "bert-bge")
        with open_gguf(tmp_path / "theirs.gguf") as file:
            assert ours == (file.metadata["bert.pooling_type"], file.metadata.types["bert.pooling_type"])


@pytest.mark.parametrize("broken", [{"pooling_mode": "weightedmean"}, {"pooling_mode": ["mean"]}, [], None])
def test_a_pooling_that_is_unsupported_is_a_warning(broken, tmp_path, caplog):
    folder_of_sentence_transformers(tmp_path, broken)
    assert AutoModel.from_pretrained(tmp_path).pooling is None
    assert "the pooling of 1_Pooling/config.json is unsupported" in caplog.text
    model = AutoModel.from_pretrained(tmp_path)
    model.pooling = "mean"  # files that are there stay
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "1_Pooling" / "config.json").read_text()) == broken
    (tmp_path / "modules.json").write_text('[3, {"type": "x.Pooling", "path": "../elsewhere"}, {"type": 3}]')
    assert AutoModel.from_pretrained(tmp_path).pooling is None
    (tmp_path / "modules.json").write_text("no JSON")
    assert torchgguf.BertModel.from_pretrained(tmp_path).pooling is None

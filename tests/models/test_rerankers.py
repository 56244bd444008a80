"""Models that score pairs of texts, as files of rerankers contain them: beside transformers and llama.cpp."""

import json

import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.models.test_bert import CASES, LINES
from tests.peers.llama_cpp import rerank, run_converter
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

SIZES = CASES["bert"].config
KINDS = {
    "roberta": ({**SIZES, "type_vocab_size": 1, "pad_token_id": 1}, "roberta-bpe"),
    "modernbert": ({**CASES["modern"].config, "classifier_pooling": "mean"}, "modern-bert"),
}


@pytest.fixture(scope="module", params=KINDS)
def reranker(request, tmp_path_factory):
    """A model of transformers with one score, and the file that the converter makes of it."""
    if not LLAMA_CPP.exists():
        pytest.skip("llama.cpp's converter is not there: python scripts/fetch_models.py")
    torch.manual_seed(0)
    folder, (fields, pre) = tmp_path_factory.mktemp(request.param), KINDS[request.param]
    config = transformers.AutoConfig.for_model(request.param, **fields, num_labels=1)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    model.save_pretrained(folder / "hf")
    add_tokenizer(folder / "hf", "gpt2")
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|user|>", "sep_token": "<|user|>"}
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "hf" / "tokenizer_config.json").write_text(json.dumps(stated))
    run_converter([str(folder / "hf"), "--outfile", str(folder / "x.gguf"), "--outtype", "f32"], pre)
    return model, folder / "x.gguf"


@torch.no_grad()
def test_scores_are_those_of_transformers(reranker, tmp_path, exact_products):
    theirs, path = reranker
    ids = torch.randint(3, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    model = AutoModelForSequenceClassification.from_pretrained(path)
    assert model.config.num_labels == 1
    assert_close(model(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()
    assert_close(AutoModel.from_pretrained(path)(ids)[0], theirs.base_model(ids)[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_scores_are_those_of_llama_cpp(reranker):
    """Which puts the separator between both texts of a pair."""
    _, path = reranker
    model = AutoModelForSequenceClassification.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    query, *documents = (
        tokenizer(text, add_special_tokens=False).input_ids for text in ("The free software", *LINES)
    )
    pairs = [torch.tensor([[*query, tokenizer.sep_token_id, *document]]) for document in documents]
    scores = torch.stack([model(pair).logits[0, 0] for pair in pairs])
    assert_close(scores, rerank(path, "The free software", LINES), atol=1e-3, rtol=0)

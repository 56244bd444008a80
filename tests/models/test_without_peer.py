"""Architectures that transformers lacks: their reference is llama.cpp, which reads files that we write."""

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.without_peer import BIDIRECTIONAL, CASES, FOR_IMAGES, sizes
from tests.peers.llama_cpp import embeddings, next_log_probabilities
from tests.peers.vocabularies import add_tokenizer
from torchgguf import AutoConfig, AutoModelForCausalLM, AutoTokenizer

TEXTS = torch.randint(3, 400, (3, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    add_tokenizer(folder, "llama")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=CASES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """A random model whose biases are not zero, nor its norms one."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(CASES[name][0], **sizes(name))
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def file(model, name, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model.gguf"
    model.save_gguf(path, tokenizer=tokenizer)
    more = {
        f"blk.{i}.{part}.weight": torch.ones(shape)
        for i in range(model.config.num_hidden_layers)
        for part, shape in FOR_IMAGES.get(name, {}).items()
    }
    return edited(path, path.with_stem("edited"), tensors=more) if more else path


@pytest.mark.slow
@pytest.mark.parametrize("name", BIDIRECTIONAL, indirect=True)
@torch.no_grad()
def test_llama_cpp_has_the_same_last_states(model, file):
    """Of models that see texts in both directions it returns no scores: vectors of texts are compared."""
    texts = [TEXTS[0, :7], TEXTS[1]]
    theirs = embeddings(file, [text.tolist() for text in texts], pooling="mean")
    for text, expected in zip(texts, theirs, strict=True):
        states = model.model(text[None]).last_hidden_state
        assert_close(normalize(states.mean(1), dim=-1)[0], expected, atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in BIDIRECTIONAL], indirect=True)
@torch.no_grad()
def test_llama_cpp_scores_tokens_alike(model, name, file):
    lengths = (5, 17, 40)  # within windows, and beyond
    texts = [text[:length] for text, length in zip(TEXTS, lengths, strict=True)]
    if name in FOR_IMAGES:  # of these models llama.cpp scores the first token that is new, not the last
        texts = [TEXTS[0, :length] for length in range(1, 18)]
    theirs = next_log_probabilities(file, [text.tolist() for text in texts])
    for text, expected in zip(texts, theirs, strict=True):
        actual = model(text[None]).logits[0, -1].log_softmax(-1)
        assert_close(actual, expected, atol=2e-3, rtol=0)


@torch.no_grad()
def test_read_it_is_the_same_model_and_written_the_same_file(model, file, tmp_path):
    for dequantize in (False, True):
        again = AutoModelForCausalLM.from_pretrained(file, dequantize=dequantize)
        assert type(again) is type(model)
        assert torch.equal(again(TEXTS).logits, model(TEXTS).logits)
        again.save_gguf(tmp_path / "again.gguf", tokenizer=AutoTokenizer.from_pretrained(file))
        assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()


@torch.no_grad()
def test_a_checkpoint_is_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    saved = {"architectures": [type(model).__name__], "dtype": "float32"}
    assert again.config.to_dict() == {**model.config.to_dict(), **saved}
    assert torch.equal(again(TEXTS).logits, model(TEXTS).logits)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_padded_and_in_pieces_it_scores_as_at_once(model, name, implementation):
    pieces = [47] if name in BIDIRECTIONAL else [20, 19, 1, 1, 6]
    twin = type(model)(model.config, attn_implementation=implementation).eval()
    twin.load_state_dict(model.state_dict())
    expected = model(TEXTS).logits
    for lefts in ((0, 0, 0), (0, 7, 3)):
        mask = (torch.arange(47) >= torch.tensor(lefts)[:, None]) & (
            torch.arange(47) < torch.tensor(lefts)[:, None] + 40
        )
        ids = torch.zeros(3, 47, dtype=torch.long)
        ids[mask] = TEXTS.flatten()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache, logits = None, []
        for part in torch.arange(47).split(pieces):
            start, end = int(part[0]), int(part[-1]) + 1
            output = twin(
                ids[:, start:end],
                attention_mask=mask[:, :end].long(),
                position_ids=positions[:, start:end],
                cache=cache,
                use_cache=True,
            )
            cache = output.cache
            logits.append(output.logits)
        assert_close(torch.cat(logits, 1)[mask], expected.flatten(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", BIDIRECTIONAL, indirect=True)
def test_a_model_that_sees_both_directions_refuses_a_cache(model):
    cache = model(TEXTS, use_cache=True).cache
    with pytest.raises(ValueError, match="both directions does not support a cache"):
        model(TEXTS[:, :1], cache=cache)


def test_gradients_reach_every_parameter(model):
    model(TEXTS, labels=TEXTS).loss.backward()
    for name, parameter in model.named_parameters():
        if not name.endswith("e_score_correction_bias"):  # which only chooses
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    model.zero_grad()

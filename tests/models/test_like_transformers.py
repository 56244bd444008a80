"""The same weights give the same numbers as in transformers, whatever the model and the batch."""

import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.tiny import CASES, LONGROPE, UNWRITABLE, counterpart, reference, training
from tests.peers.transformers import cache_of, given_cache

# After the first piece of a text, transformers scans pieces of several tokens as if nothing were before them.
FORGETFUL = ("falcon_mamba", "jamba", "mamba", "mamba2")
ALL = {**CASES, **UNWRITABLE, "llama-longrope": LONGROPE}


@pytest.fixture(scope="module", params=ALL, ids=ALL.keys())
def model(request):
    return reference(ALL[request.param])


def tokens(model, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, model.config.vocab_size, (batch, length), generator=generator)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_logits(model, implementation):
    ids = tokens(model, 2, 24)
    assert_close(counterpart(model, implementation)(ids).logits, model(ids).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_state_dict_names_and_shapes(model):
    twin = counterpart(model)
    shapes = {name: value.shape for name, value in twin.state_dict().items()}
    assert shapes == {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padded_rows_equal_themselves_alone(model, side, implementation):
    """Each row, padded or not, gives what transformers gives for that row alone."""
    twin = counterpart(model, implementation)
    lengths, width = (11, 18, 5), 18
    texts = [tokens(model, 1, length)[0] for length in lengths]
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        place = slice(width - length, width) if side == "left" else slice(0, length)
        ids[row, place], mask[row, place] = text, 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = twin(ids, attention_mask=mask, position_ids=positions).logits
    assert logits.isfinite().all()
    for row, text in enumerate(texts):
        expected = model(text[None]).logits[0]
        assert_close(logits[row][mask[row].bool()], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_in_pieces_through_the_cache(model, implementation):
    """A prompt, another piece, then single tokens give what they give in transformers."""
    twin, ids, cache, their_cache = counterpart(model, implementation), tokens(model, 2, 24), None, None
    whole, end = model(ids).logits if model.config.model_type in FORGETFUL else None, 0
    for piece in ids.split([9, 8, 1, 1, 1, 1, 1, 1, 1], dim=1):
        output = twin(piece, cache=cache, use_cache=True)
        cache, start, end = output.cache, end, end + piece.shape[1]
        assert cache.get_seq_length() == end
        if whole is None:
            expected = model(piece, **given_cache(their_cache), use_cache=True)
            their_cache = cache_of(expected)
            assert their_cache.get_seq_length() == end
        logits = expected.logits if whole is None else whole[:, start:end]
        assert_close(output.logits, logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_left_padded_batch_through_the_cache(model):
    """A padded batch, continued token by token, gives what transformers gives for each row alone."""
    twin, texts = counterpart(model), [tokens(model, 1, 16)[0], tokens(model, 1, 11)[0]]
    ids = torch.zeros(2, 16, dtype=torch.long)
    ids[0], ids[1, 5:] = texts[0], texts[1]
    mask = (torch.arange(16) >= torch.tensor([[0], [5]])).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, logits = None, []
    for start, end in ((0, 12), (12, 13), (13, 14), (14, 15), (15, 16)):
        output = twin(
            ids[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, start:end],
            cache=cache,
        )
        cache = output.cache
        logits.append(output.logits)
    joined = torch.cat(logits, dim=1)
    for row, text in enumerate(texts):
        assert_close(joined[row, 16 - len(text) :], model(text[None]).logits[0], atol=1e-4, rtol=0)


def test_loss_and_gradients(model):
    twin, ids = training(counterpart(model)), tokens(model, 2, 12)
    labels = ids.clone()
    labels[0, :4] = -100
    expected, actual = model(ids, labels=labels), twin(ids, labels=labels)
    assert_close(actual.loss, expected.loss, atol=1e-5, rtol=0)
    model.zero_grad()
    expected.loss.backward()
    actual.loss.backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in model.named_parameters():
        assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


@torch.no_grad()
def test_hidden_states_and_attentions(model):
    ids = tokens(model, 2, 12)
    expected = model(ids, output_hidden_states=True, output_attentions=True)
    actual = counterpart(model, "eager")(ids, output_hidden_states=True, output_attentions=True)
    assert len(actual.hidden_states) == len(expected.hidden_states)
    for ours, theirs in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=0)
    of_both = (actual.attentions or (), expected.get("attentions") or ())  # none in layers without attention
    for ours, theirs in zip(*of_both, strict=True):
        assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_embeddings_in_place_of_tokens(model):
    ids = tokens(model, 1, 9)
    twin = counterpart(model)
    embeds = model.get_input_embeddings()(ids)
    expected = model(inputs_embeds=embeds).logits
    assert_close(twin(inputs_embeds=embeds).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_to_keep(model):
    ids, index = tokens(model, 2, 9), torch.tensor([0, 4])
    twin, expected = counterpart(model), model(ids).logits
    assert_close(twin(ids, logits_to_keep=3).logits, expected[:, -3:], atol=1e-4, rtol=0)
    assert_close(twin(ids, logits_to_keep=index).logits, expected[:, index], atol=1e-4, rtol=0)


@torch.no_grad()
def test_greedy_text(model):
    """`generate` continues a batch as transformers does."""
    ids = tokens(model, 2, 6)
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    expected = model.generate(ids, attention_mask=mask, **options)
    assert torch.equal(counterpart(model).generate(ids, attention_mask=mask, **options), expected)


@pytest.mark.parametrize("name", ["AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"])
def test_what_to_load_goes_by_the_name_it_has_in_transformers(name):
    for library in (torchgguf, transformers):
        with pytest.raises(OSError, match="there-is-none"):
            getattr(library, name).from_pretrained(pretrained_model_name_or_path="./there-is-none")

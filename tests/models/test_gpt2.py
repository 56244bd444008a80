"""GPT-2 against transformers: with the same weights, all classes give the same outputs and gradients."""

import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.tiny import OWN_SIZES
from tests.nn import flash
from tests.pairs import every_pair
from tests.peers.transformers import given_cache, our_name

SIZES = {**OWN_SIZES["GPT2"], "vocab_size": 60, "n_embd": 24, "n_positions": 30, "pad_token_id": 1}
BATCH, LENGTH, LABELS = 3, 9, 4
FLAGS = {
    "plain": {},
    "upcast": {"reorder_and_upcast_attn": True},
    "by-layer": {"scale_attn_by_inverse_layer_idx": True},
    "both": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True, "n_inner": 40},
}
LEFT_OUT = {
    "none": (0, 0, 0),
    "left": (0, 4, 2),
    "right": (0, 4, 2),
}  # by side: how much of each row is padding


def integers(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(2, high, shape, generator=torch.Generator().manual_seed(high))


def twice(rows: torch.Tensor) -> torch.Tensor:
    """Each row as two choices."""
    return torch.stack((rows, rows), dim=1)


def targets(mask: torch.Tensor, high: int) -> torch.Tensor:
    return torch.where(mask.bool(), integers(high, *mask.shape), -100)


# Of each class, what it is given to make losses of, by the mask `(BATCH, LENGTH)`.
LABELS_OF = {
    "GPT2Model": lambda mask: {},
    "GPT2LMHeadModel": lambda mask: {"labels": targets(mask, 60)},
    "GPT2DoubleHeadsModel": lambda mask: {
        "labels": targets(twice(mask), 60),
        "mc_labels": torch.tensor([0, 1, 1]),
        "mc_token_ids": twice((mask * torch.arange(LENGTH)).argmax(1)) - torch.tensor([0, 1]),
    },
    "GPT2ForSequenceClassification": lambda mask: {"labels": torch.tensor([3, 0, 1])},
    "GPT2ForTokenClassification": lambda mask: {"labels": targets(mask, LABELS)},
    "GPT2ForQuestionAnswering": lambda mask: {
        "start_positions": torch.tensor([4, 2, 9]),
        "end_positions": torch.tensor([7, 2, 5]),
    },
}


def pair(name: str, attention: str = "sdpa", **fields):
    """The class here and in transformers, with the same random weights, none of them zero or one."""
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(transformers.GPT2Config(**{**SIZES, **fields}))
    theirs.set_attn_implementation(attention)
    with torch.no_grad():
        for path, parameter in theirs.named_parameters():
            if path.endswith("bias") or ".ln_" in path:
                parameter.normal_(mean=float(".ln_" in path), std=0.3)
    config = torchgguf.GPT2Config.from_dict(theirs.config.to_dict())
    ours = getattr(torchgguf, name)(config, attention)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def batch(name: str, side: str) -> dict[str, torch.Tensor]:
    """Tokens and their kinds, padding on a side, on the left with positions that leave it out; labels."""
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    for row, count in enumerate(LEFT_OUT[side]):
        mask[row, slice(0, count) if side == "left" else slice(LENGTH - count, LENGTH)] = 0
    labels = LABELS_OF[name](mask)
    mask = twice(mask) if name == "GPT2DoubleHeadsModel" else mask
    given = {
        "input_ids": torch.where(mask.bool(), integers(60, *mask.shape), SIZES["pad_token_id"]),
        "attention_mask": mask,
        "token_type_ids": integers(20, *mask.shape),
    }
    if side == "left":
        # Of choices, transformers takes positions as rows only.
        given["position_ids"] = (mask.flatten(0, -2).cumsum(-1) - 1).clamp(min=0)
    return {**given, **labels}


def assert_same(actual, expected, what: str) -> None:
    """The same numbers, in tensors and tuples of them; caches hold the same keys and values."""
    if isinstance(expected, transformers.DynamicCache):
        assert actual.get_seq_length() == expected.get_seq_length()
        return
    if not isinstance(expected, torch.Tensor):
        assert len(actual) == len(expected), what
        for ours, theirs in zip(actual, expected, strict=True):
            assert_same(ours, theirs, what)
        return
    assert_close(actual, expected, atol=2e-5, rtol=1e-4, msg=lambda text: f"{what}: {text}")


def total_loss(output) -> torch.Tensor:
    losses = [output[key] for key in ("loss", "mc_loss") if key in output]
    return sum(losses) if losses else output.last_hidden_state.square().mean()


@pytest.mark.parametrize(
    ("name", "flags", "side", "attention", "use_cache"),
    every_pair(list(LABELS_OF), list(FLAGS), list(LEFT_OUT), ["eager", "sdpa"], [False, True]),
)
def test_outputs_losses_and_gradients(name, flags, side, attention, use_cache):
    ours, theirs = pair(name, attention, num_labels=LABELS, **FLAGS[flags])
    given = batch(name, side)
    shown = {"output_hidden_states": True, "output_attentions": attention == "eager", "use_cache": use_cache}
    actual, expected = ours(**given, **shown), theirs(**given, **shown)
    # Of attention to an encoder, which there is none of, transformers shows no tuple, or an empty one.
    assert list(actual.keys()) == [our_name(key) for key, _ in expected.items() if key != "cross_attentions"]
    for key, value in actual.items():
        assert_same(value, expected[key], key)
    total_loss(actual).backward()
    total_loss(expected).backward()
    gradients = {path: parameter.grad for path, parameter in ours.named_parameters()}
    for path, parameter in theirs.named_parameters():
        assert_close(gradients[path], parameter.grad, atol=2e-5, rtol=1e-3, msg=path)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", LABELS_OF)
def test_dropout_is_where_it_is_in_transformers(name, attention):
    """With the same random numbers, drawn in the same order, training steps are the same."""
    rates = {"embd_pdrop": 0.1, "attn_pdrop": 0.2, "resid_pdrop": 0.3, "summary_first_dropout": 0.4}
    losses = []
    for model in pair(name, attention, num_labels=LABELS, **rates):
        torch.manual_seed(1)
        losses.append(total_loss(model.train()(**batch(name, "right"))))
    assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "side", "flags", "attention"),
    every_pair(list(LABELS_OF), list(LEFT_OUT), ["plain", "both"], ["eager", "sdpa"]),
)
@torch.no_grad()
def test_in_pieces_through_the_cache(name, side, flags, attention):
    ours, theirs = pair(name, attention, num_labels=LABELS, **FLAGS[flags])
    given = batch("GPT2Model", side)
    mask = given.pop("attention_mask")
    cache, end = torchgguf.DynamicCache(), 0
    held_caches = ({"cache": cache}, given_cache(transformers.DynamicCache()))
    for size in (5, 2, 1, 1):
        start, end = end, end + size
        piece = {key: value[:, start:end] for key, value in given.items()}
        actual, expected = (
            model(**piece, attention_mask=mask[:, :end], **held, use_cache=True)
            for model, held in zip((ours, theirs), held_caches, strict=True)
        )
        for key, value in expected.items():
            assert_same(actual[our_name(key)], value, key)
    assert cache.get_seq_length() == LENGTH


@pytest.mark.parametrize("name", LABELS_OF)
def test_outputs_are_tuples_too(name):
    ours, theirs = pair(name, num_labels=LABELS)
    given = batch(name, "none")
    actual, expected = ours(**given, return_dict=False), theirs(**given, return_dict=False)
    assert isinstance(actual, tuple)
    assert_same(actual, expected, name)
    assert_same(tuple(ours(**given)), expected, name)


def test_choices_as_texts_of_a_language_model():
    ours, theirs = pair("GPT2LMHeadModel")
    ids = integers(60, BATCH, 2, LENGTH)
    actual, expected = ours(ids, labels=ids), theirs(ids, labels=ids)
    assert_same(actual.logits, expected.logits, "logits")
    assert_same(actual.loss, expected.loss, "loss")


SUMMARIES = {
    "last": {"summary_type": "last"},
    "first": {"summary_type": "first", "summary_activation": "tanh"},
    "mean": {"summary_type": "mean", "summary_proj_to_labels": False, "summary_activation": "relu"},
    "cls_index": {"summary_type": "cls_index", "summary_use_proj": False},
}


@pytest.mark.parametrize("indexed", [False, True], ids=["by-default", "by-index"])
@pytest.mark.parametrize("fields", SUMMARIES.values(), ids=SUMMARIES)
@torch.no_grad()
def test_summaries(fields, indexed):
    ours, theirs = pair("GPT2DoubleHeadsModel", **fields)
    ids, index = integers(60, BATCH, LENGTH), torch.tensor([0, 5, 8]) if indexed else None
    expected = theirs(ids, mc_token_ids=index).mc_logits
    assert_close(ours(ids, mc_token_ids=index).mc_logits, expected)
    # Of choices, transformers' takes the last, the first, the mean; ours that of each choice's positions.
    index = None if index is None else index[:, None]
    assert_close(ours(ids[:, None], mc_token_ids=index).mc_logits[:, 0], expected)


HALVES = {"model": (torch.bfloat16, False), "autocast": (torch.float32, True)}


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_attention_2"])
@pytest.mark.parametrize(("dtype", "autocast"), HALVES.values(), ids=HALVES)
@torch.no_grad()
def test_scores_are_made_in_float32_where_asked_to(dtype, autocast, attention, monkeypatch):
    """Scores so large that bfloat16 rounds whole units off: all do as transformers' eager one."""
    flash.install(monkeypatch)
    theirs = pair("GPT2Model", "eager", **FLAGS["upcast"], n_layer=1)[1]
    theirs.h[0].attn.c_attn.weight[:, :48] *= 30
    outputs = {}
    for upcast in (True, False):
        theirs.h[0].attn.reorder_and_upcast_attn = upcast
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs[upcast] = theirs.to(dtype)(integers(60, BATCH, LENGTH)).last_hidden_state.float()
    ours = torchgguf.GPT2Model(torchgguf.GPT2Config.from_dict(theirs.config.to_dict()), attention)
    ours.load_state_dict(theirs.state_dict())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        actual = ours.to(dtype).eval()(integers(60, BATCH, LENGTH)).last_hidden_state.float()
    assert_close(actual, outputs[True], atol=0.02, rtol=0)
    assert (outputs[False] - outputs[True]).abs().max() > 0.05


def test_gradient_checkpointing():
    ours, theirs = pair("GPT2LMHeadModel", **FLAGS["both"])
    given = batch("GPT2LMHeadModel", "right")
    ours.gradient_checkpointing_enable()
    assert ours.is_gradient_checkpointing
    ours.train()(**given, use_cache=False).loss.backward()
    theirs(**given).loss.backward()
    gradients = {path: parameter.grad for path, parameter in ours.named_parameters()}
    for path, parameter in theirs.named_parameters():
        assert_close(gradients[path], parameter.grad, atol=2e-5, rtol=1e-3, msg=path)


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "GPT2DoubleHeadsModel"])
def test_greedy_text(name, flags):
    ours, theirs = pair(name, **flags)
    given = batch("GPT2Model", "left")
    prompts = {key: given[key] for key in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 1}
    expected = theirs.generate(**prompts, **options)
    assert torch.equal(ours.generate(**prompts, **options), expected)
    assert torch.equal(ours.generate(**prompts, **options, cache_implementation="static"), expected)


def test_first_values():
    """Random with the config's deviation; less where much is added up; no biases."""
    torch.manual_seed(0)
    config = torchgguf.GPT2Config(n_embd=96, n_layer=4, n_head=4, n_positions=64, initializer_range=0.1)
    for path, parameter in torchgguf.GPT2DoubleHeadsModel(config).named_parameters():
        if path.endswith("bias"):
            assert not parameter.any(), path
        elif ".ln_" in path:
            assert (parameter == 1).all(), path
        elif parameter.numel() > 1000:
            expected = 0.1 / 8**0.5 if "c_proj" in path else 0.1
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), path


def test_second_names_of_fields():
    config = torchgguf.GPT2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=6)
    theirs = transformers.GPT2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=6)
    for name in ("n_embd", "n_layer", "n_head", "n_positions", *theirs.attribute_map):
        assert getattr(config, name) == getattr(theirs, name)
    config.max_position_embeddings = 77
    assert config.n_positions == 77 and "max_position_embeddings" not in config.to_dict()
    assert torchgguf.GPT2Config.from_dict({"hidden_size": 36}).n_embd == 36
    with pytest.raises(ValueError, match="hidden_size and n_embd are one field, got 48 and 36"):
        torchgguf.GPT2Config(hidden_size=48, n_embd=36)


def test_the_config_is_that_of_transformers():
    theirs, ours = transformers.GPT2Config().to_dict(), torchgguf.GPT2Config().to_dict()
    own = transformers.GPT2Config.__annotations__.keys() - {"attribute_map", "keys_to_ignore_at_inference"}
    assert {name: ours[name] for name in own if name != "model_type"} == {
        name: theirs[name] for name in own if name != "model_type"
    }


REFUSED = {
    "cross-attention": ({"add_cross_attention": True}, "add_cross_attention=True"),
    "heads": ({"n_head": 7}, "n_head must be a positive divisor of n_embd=24, got n_head=7"),
    "activation": ({"activation_function": "gelu_7"}, "activation_function 'gelu_7'"),
    "summary": ({"summary_type": "attn"}, "summary_type 'attn' is not supported; these are: last, first"),
    "summary's activation": ({"summary_activation": "sin"}, "summary_activation 'sin'"),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_configs(fields, words):
    with pytest.raises(ValueError, match=words):
        torchgguf.GPT2DoubleHeadsModel(torchgguf.GPT2Config.from_dict({**SIZES, **fields}))


def test_refused_inputs():
    model, ids = pair("GPT2LMHeadModel")[0], integers(60, 1, 31)
    with pytest.raises(ValueError, match="position_ids must be below n_positions=30, got 30"):
        model(ids)
    with pytest.raises(ValueError, match="pass exactly one of input_ids and inputs_embeds"):
        model(ids, inputs_embeds=model.transformer.wte(ids), token_type_ids=ids)
    with pytest.raises(TypeError, match="encoder_hidden_states"):
        model(ids[:, :5], encoder_hidden_states=torch.zeros(1, 3, 24))

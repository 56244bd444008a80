"""Heads beside the language model's: the same weights give what they give in transformers, gradients too."""

import copy
import inspect
import re

import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.classes import ARCHITECTURES
from tests.models.tiny import CASES, SIZES, Case, counterpart, reference
from tests.peers.transformers import CACHE_NAME, cache_of, given_cache, our_name
from torchgguf.models.blocks.heads import ForTokenClassification

SEQUENCE, TOKEN, SPAN = (
    f"AutoModelFor{task}" for task in ("SequenceClassification", "TokenClassification", "QuestionAnswering")
)
KINDS = {case.kind: case for case in reversed(CASES.values())}  # the first case of each kind
PAD, LENGTHS, WIDTH = 399, (11, 7, 4), 11


def has_class(kind: str, auto_class: str) -> bool:
    return hasattr(transformers, f"{kind}{auto_class.removeprefix('AutoModel')}")


PAIRS = [(kind, auto) for kind in KINDS for auto in (SEQUENCE, TOKEN, SPAN) if has_class(kind, auto)]


def build(kind: str, auto_class: str, implementation: str = "sdpa", **config):
    """The model of transformers, and its counterpart here."""
    case = KINDS[kind]
    # Labels that are not two, and a token that is padding: its row would be zero if the class were told.
    theirs = reference(
        Case(case.kind, {**case.config, "pad_token_id": PAD, "num_labels": 3, **config}), auto_class
    )
    theirs.set_attn_implementation(implementation)
    return theirs, counterpart(theirs, implementation, auto_class)


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request):
    kind, auto_class = request.param
    # What padding on the left gets depends on the implementation, and these have but one in transformers.
    return *build(
        kind, auto_class, "eager" if kind in ("Bloom", "Falcon", "Gemma2", "GptOss") else "sdpa"
    ), auto_class


def batch(side: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, PAD, (len(LENGTHS), WIDTH), generator=torch.Generator().manual_seed(1))
    places = torch.arange(WIDTH)
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = places < lengths if side == "right" else places >= WIDTH - lengths
    inputs = {"input_ids": ids.masked_fill(~mask, PAD), "attention_mask": mask.long()}
    return inputs if side == "right" else {**inputs, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def targets(auto_class: str, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    if auto_class == SEQUENCE:
        return {"labels": torch.tensor([2, 0, 1])}
    if auto_class == TOKEN:
        return {"labels": (torch.arange(mask.numel()).view_as(mask) % 3).masked_fill(mask == 0, -100)}
    # One behind the text, which does not count; one before it, which is its start.
    return {"start_positions": torch.tensor([3, 99, -1]), "end_positions": torch.tensor([[4], [6], [10]])}


def inputs_for(model, side: str) -> dict[str, torch.Tensor]:
    """Bloom of transformers takes no `position_ids`, nor do some heads of Falcon."""
    accepted = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in batch(side).items() if name in accepted}


def assert_same_outputs(actual, expected):
    for name in expected.keys() - {CACHE_NAME}:
        assert_close(actual[name], expected[name], atol=1e-4, rtol=0, msg=lambda m, name=name: f"{name}: {m}")
    assert list(actual.keys()) == [our_name(name) for name in expected]


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_losses_and_gradients(pair, side):
    theirs, ours, auto_class = pair
    inputs = inputs_for(theirs, side)
    inputs |= targets(auto_class, inputs["attention_mask"])
    expected, actual = theirs(**inputs), ours(**inputs)
    assert_same_outputs(actual, expected)
    if (auto_class, side, ours.base_model.attn_implementation) == (SPAN, "left", "eager"):
        return  # the loss counts what padding gets, which is the same by another path: gradients are not
    theirs.zero_grad()
    ours.zero_grad()
    expected.loss.backward()
    actual.loss.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        largest = max(1.0, parameter.grad.abs().max().item())  # scaled embeddings have large ones
        assert_close(gradients[name], parameter.grad, atol=1e-4 * largest, rtol=1e-3, msg=name)


@torch.no_grad()
def test_class_and_names_are_those_of_transformers(pair):
    theirs, ours, _ = pair
    assert type(ours).__name__ == type(theirs).__name__
    assert ours.base_model_prefix == theirs.base_model_prefix
    assert ours.base_model is getattr(ours, theirs.base_model_prefix)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert ours.get_input_embeddings() is ours.base_model.get_input_embeddings()


@torch.no_grad()
def test_an_option_of_none_asks_for_nothing(pair):
    """Models of PEFT pass on what nobody asked for as None, which in transformers is the default."""
    theirs, ours, _ = pair
    inputs = {"input_ids": batch("right")["input_ids"], "use_cache": False}
    options = dict.fromkeys(("return_dict", "output_attentions", "output_hidden_states"))
    actual, expected = (model(**inputs, **options) for model in (ours, theirs))
    assert type(actual).__name__ == type(expected).__name__
    assert_same_outputs(actual, expected)


@torch.no_grad()
def test_outputs_as_tuples_with_all_states(pair):
    theirs, ours, _ = pair
    inputs = {"input_ids": batch("right")["input_ids"], "output_hidden_states": True, "use_cache": False}
    expected, actual = theirs(**inputs), ours(**inputs)
    assert type(actual).__name__ == type(expected).__name__
    assert_close(actual.hidden_states, expected.hidden_states, atol=1e-4, rtol=0)
    assert_close(ours(**inputs, return_dict=False), expected.to_tuple(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("auto_class", [SEQUENCE, SPAN])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_eager_attention(auto_class, side):
    theirs, ours = build("Llama", auto_class, "eager")
    inputs = batch(side)
    inputs |= targets(auto_class, inputs["attention_mask"]) | {"output_attentions": True}
    assert_same_outputs(ours(**inputs), theirs(**inputs))


PROBLEMS = {
    "regression-of-one": (1, None, torch.tensor([0.5, -1.0, 2.0])),
    "regression-of-a-column": (1, None, torch.tensor([[0.5], [-1.0], [2.0]])),
    "regression-of-three": (3, "regression", torch.randn(3, 3)),
    "single": (3, None, torch.tensor([2, 0, 1])),
    "single-column": (3, None, torch.tensor([[2], [0], [1]])),
    "single-in-part": (3, "single_label_classification", torch.tensor([2, -100, 1])),
    "multi": (3, None, torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]])),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problem_types(problem):
    """Found by number and dtype of the labels, and kept for those who read the scores later."""
    num_labels, problem_type, labels = PROBLEMS[problem]
    theirs, ours = build("Llama", SEQUENCE, num_labels=num_labels, problem_type=problem_type)
    inputs = {**batch("right"), "labels": labels}
    assert_close(ours(**inputs).loss, theirs(**inputs).loss, atol=1e-5, rtol=0)
    assert ours.config.problem_type == theirs.config.problem_type is not None


@torch.no_grad()
def test_which_token_counts():
    """Padding within a text, nothing but padding, one text without a padding token, embeddings."""
    theirs, ours = build("Llama", SEQUENCE)
    ids = batch("right")["input_ids"]
    ids[0, 5], ids[1] = PAD, PAD
    assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)
    embeds = theirs.get_input_embeddings()(ids)
    with pytest.warns(UserWarning, match="the last position is scored, even if it is padding"):
        actual = ours(inputs_embeds=embeds).logits
    assert_close(actual, theirs(inputs_embeds=embeds).logits, atol=1e-4, rtol=0)
    theirs.config.pad_token_id = ours.config.pad_token_id = None
    assert_close(ours(ids[:1]).logits, theirs(ids[:1]).logits, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"set config\.pad_token_id"):
        ours(ids)


@torch.no_grad()
def test_judging_on_from_a_cache():
    theirs, ours = build("Llama", SEQUENCE)
    ids, cache, their_cache = batch("right")["input_ids"][:, :4], None, None
    for piece in ids.split(2, dim=1):
        outputs = ours(piece, cache=cache), theirs(piece, **given_cache(their_cache))
        cache, their_cache = outputs[0].cache, cache_of(outputs[1])
        assert_close(outputs[0].logits, outputs[1].logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "config", [{}, {"classifier_dropout": 0.4}, {"hidden_dropout": 0.3}, {"classifier_dropout": 0.0}]
)
def test_dropout_is_what_the_config_says(config):
    theirs, ours = build("Llama", TOKEN, **config)
    inputs, logits = batch("right"), []
    for model in (theirs.train(), ours.train()):
        torch.manual_seed(3)
        logits.append(model(**inputs).logits)
    assert_close(logits[1], logits[0], atol=1e-4, rtol=0)


def test_labels_of_a_wrong_shape():
    inputs = batch("right")
    for auto_class, labels, message in (
        (SEQUENCE, torch.zeros(2, dtype=torch.long), r"a label for each text, \(3,\), got shape \(2,\)"),
        (SEQUENCE, torch.zeros(3), r"a number for each text and label, \(3, 3\), got shape \(3,\)"),
        (TOKEN, torch.zeros(3, 4, dtype=torch.long), r"a label for each token, \(3, 11\)"),
    ):
        with pytest.raises(ValueError, match=message):
            build("Llama", auto_class)[1](**inputs, labels=labels)


def test_loss_of_a_batch_in_parts():
    theirs, ours = reference(CASES["llama"]), counterpart(reference(CASES["llama"]))
    ids = batch("right")["input_ids"]
    labels = ids.masked_fill(ids == PAD, -100)
    for count in (None, 40, torch.tensor(23)):
        expected = theirs(ids, labels=labels, num_items_in_batch=count).loss
        assert_close(ours(ids, labels=labels, num_items_in_batch=count).loss, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"a token for each position scored, \(3, 2\)"):
        ours(ids, labels=labels, logits_to_keep=2)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "options", [{"new_num_tokens": 407}, {"new_num_tokens": 390}, {"pad_to_multiple_of": 64}]
)
@torch.no_grad()
def test_vocabulary_of_another_size(tied, options):
    """As in transformers, but that it draws new rows around the same mean, from a narrow distribution."""
    theirs, ours = build("Llama", "AutoModelForCausalLM", tie_word_embeddings=tied)
    expected, actual = theirs.resize_token_embeddings(**options), ours.resize_token_embeddings(**options)
    assert actual is ours.get_input_embeddings() is ours.model.embed_tokens
    assert (actual.num_embeddings, ours.lm_head.out_features) == (expected.num_embeddings,) * 2
    assert ours.config.vocab_size == theirs.config.vocab_size == actual.num_embeddings
    assert_close(actual.weight, expected.weight, atol=1e-3, rtol=0)
    assert_close(ours.lm_head.weight, theirs.lm_head.weight, atol=1e-3, rtol=0)
    assert (ours.lm_head.weight is actual.weight) is tied
    ids = batch("right")["input_ids"][:, :3] % 390
    assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["phi2", "phimoe"])
@torch.no_grad()
def test_vocabulary_of_another_size_and_a_head_with_a_bias(name):
    theirs, ours = reference(CASES[name]), counterpart(reference(CASES[name]))
    ids = torch.arange(12).view(1, 12)
    for size in (390, 407):
        theirs.resize_token_embeddings(size)
        ours.resize_token_embeddings(size)
        assert_close(ours.lm_head.bias, theirs.lm_head.bias, atol=1e-3, rtol=0)
        assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-2, rtol=0)


def test_vocabularies_that_cannot_be():
    ours = build("Llama", "AutoModelForCausalLM")[1]
    for options in ({"new_num_tokens": 0}, {"pad_to_multiple_of": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            ours.resize_token_embeddings(**options)
    embedding = ours.get_input_embeddings()
    packed = torchgguf.nn.QuantizedEmbedding(*embedding.weight.shape, "Q8_0")
    ours.set_input_embeddings(packed)
    assert ours.get_input_embeddings() is ours.model.embed_tokens is packed
    with pytest.raises(ValueError, match=r"resizing packed rows is unsupported: call dequantize\(\) first"):
        ours.resize_token_embeddings(500)


@pytest.mark.parametrize("tied", [False, True])
def test_sizes(tied):
    theirs, ours = build("Llama", "AutoModelForCausalLM", tie_word_embeddings=tied)
    for model in (theirs, ours):
        model.get_submodule("model.layers.0").requires_grad_(False)
    for options in ({}, {"only_trainable": True}, {"exclude_embeddings": True}):
        assert ours.num_parameters(**options) == theirs.num_parameters(**options)
    assert ours.get_memory_footprint(return_buffers=False) == theirs.get_memory_footprint(
        return_buffers=False
    )
    layer = ours.model.layers[1].mlp
    weights = ours.num_parameters()
    layer.up_proj = torchgguf.nn.QuantizedLinear(64, 96, "Q8_0")
    assert ours.num_parameters() == weights
    assert ours.num_parameters(only_trainable=True) == theirs.num_parameters(only_trainable=True) - 64 * 96


def test_the_row_of_padding():
    """New models start with zeros there, as in transformers; an id beyond all rows is never looked up."""
    config = {**SIZES, "pad_token_id": PAD}
    theirs = transformers.LlamaModel(transformers.LlamaConfig(**config)).embed_tokens
    ours = torchgguf.LlamaModel(torchgguf.LlamaConfig(**config)).embed_tokens
    assert_close(ours.weight[PAD], theirs.weight[PAD])
    assert ours.padding_idx == theirs.padding_idx == PAD
    assert ours.weight[0].any()
    model = torchgguf.LlamaModel(torchgguf.LlamaConfig(**{**config, "pad_token_id": 2**32 - 1}))
    assert model(batch("left")["input_ids"]).last_hidden_state.isfinite().all()


def test_classes_that_transformers_has_not():
    """No head is made up, and the message says for which models there is one."""
    for architecture in ARCHITECTURES:
        kind = architecture.classes["base"].__name__.removesuffix("Model").removesuffix("Encoder")
        config = architecture.config_class()
        for auto_class in (SEQUENCE, TOKEN, SPAN):
            if not has_class(kind, auto_class):
                reason = f"{auto_class} has no class for model_type '{config.model_type}', which has: {kind}"
                with pytest.raises(ValueError, match=re.escape(reason)):
                    getattr(torchgguf, auto_class).from_config(config)


def test_heads_are_copied_with_their_models():
    ours = build("Llama", TOKEN)[1]
    twin = copy.deepcopy(ours)
    assert isinstance(twin, ForTokenClassification)
    assert twin.scorer is twin.score is not ours.score

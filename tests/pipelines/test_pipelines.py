"""Pipelines against those of transformers, with the same weights."""

import itertools

import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.pipelines.conftest import LABELS
from torchgguf import pipeline

TEXTS = [
    "John Smith lives in New York, or so they say.",
    "A short one",
    "Zürich is colder than Rome in winter",
]
CPU = {"device": "cpu"}


def both(pair, task, **options):
    theirs = transformers.pipeline(task, model=pair.theirs, tokenizer=pair.their_tokenizer, **CPU, **options)
    ours = pipeline(task, model=pair.ours, tokenizer=pair.our_tokenizer, **CPU, **options)
    return theirs, ours


def assert_same(actual, expected):
    """Equal in structure and text, numbers close."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, str):
        assert actual == expected
    else:
        assert actual == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


# The words of "a", so that there are no two best tokens to choose between.
GREEDY = {"max_new_tokens": 8, "do_sample": False}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_full_text": False},
        {"prefix": "Listen: "},
        {"return_tensors": True},
        {"num_beams": 3, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_text_generation(pair, options):
    theirs, ours = both(pair("LMHeadModel"), "text-generation", **GREEDY)
    if options.get("return_tensors"):
        expected = [theirs(text, **options) for text in TEXTS]
    else:
        expected = theirs(TEXTS, **options)
    assert ours(TEXTS, **options) == expected
    assert ours(TEXTS, batch_size=3, **options) == expected
    assert ours(TEXTS[0], **options) == theirs(TEXTS[0], **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_length": 30},
        {"max_length": 40, "min_length": 20, "eos_token_id": 11},
        {"max_new_tokens": 10, "repetition_penalty": 1.5},
        {"max_new_tokens": 10, "no_repeat_ngram_size": 2},
        {"max_new_tokens": 10, "num_beams": 3},
        {"max_new_tokens": 10, "stop_sequence": ["a", "r"]},
    ],
    ids=str,
)
def test_a_batch_changes_no_answer(pair, options):
    """Transformers pads, and lets limits count the padding: it is asked one by one."""
    theirs, ours = both(pair("LMHeadModel"), "text-generation", do_sample=False)
    texts = ["word " * 20, *TEXTS]
    kept = {"skip_special_tokens": False, **options}
    limit = {} if "max_new_tokens" in options else {"max_length": 64}
    expected = [theirs(text, **{**limit, **kept}) for text in texts]
    assert ours(texts, batch_size=4, **kept) == expected
    assert [ours(text, **kept) for text in texts] == expected


def test_empty_texts_start_from_the_bos_token(pair):
    theirs, ours = both(pair("LMHeadModel"), "text-generation", **GREEDY)
    assert ours(["", TEXTS[0], ""], batch_size=3) == [theirs(text) for text in ("", TEXTS[0], "")]
    assert ours("", return_tensors=True) == theirs("", return_tensors=True)


def test_a_prefix_is_not_counted(pair):
    theirs, ours = both(pair("LMHeadModel"), "text-generation", do_sample=False)
    options = {"prefix": "Listen to this: ", "max_length": 20}
    assert ours(TEXTS[1], **options) == theirs(TEXTS[1], **options)


def test_what_the_generation_config_says_holds(pair):
    """The model's, until the pipeline or a call says otherwise; one given in a call says all anew."""
    models = pair("LMHeadModel")
    models.theirs.generation_config.update(max_length=24, do_sample=False)
    models.ours.generation_config = torchgguf.GenerationConfig(
        max_length=24, do_sample=False, bos_token_id=50256, eos_token_id=50256
    )
    theirs, ours = both(models, "text-generation", max_new_tokens=5)
    for options in ({}, {"max_new_tokens": 3}):
        assert ours(TEXTS[1], **options) == theirs(TEXTS[1], **options)
    given = {"min_new_tokens": 3, "num_beams": 2}
    assert ours(
        TEXTS[1], generation_config=torchgguf.GenerationConfig(**given), return_tensors=True
    ) == theirs(TEXTS[1], generation_config=transformers.GenerationConfig(**given), return_tensors=True)


def test_a_model_writes_no_further_than_it_can_read(pair):
    _, ours = both(pair("LMHeadModel"), "text-generation", do_sample=False)
    (record,) = ours("One two three", return_tensors=True)
    assert len(record["generated_token_ids"]) == 64


def test_what_is_drawn_follows_the_seed(pair):
    _, ours = both(pair("LMHeadModel"), "text-generation", max_new_tokens=8)
    torch.manual_seed(1)
    once = ours(TEXTS[0], num_return_sequences=3)
    torch.manual_seed(1)
    assert ours(TEXTS[0], num_return_sequences=3) == once
    assert len({record["generated_text"] for record in once}) == 3


def test_long_prompts_are_cut_if_asked_for(pair):
    theirs, ours = both(pair("LMHeadModel"), "text-generation", **GREEDY)
    theirs.tokenizer.model_max_length = 64
    text = "word " * 100
    new = ours(text, return_full_text=False, handle_long_generation="hole")
    assert new == theirs(text, return_full_text=False, handle_long_generation="hole")


CHATS = [
    [{"role": "user", "content": "Who are you?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}],
    [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I am"}],
]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.mark.parametrize("chat", [*CHATS, CHATS], ids=["user", "system", "continued", "several"])
def test_chat(pair, chat):
    models = pair("LMHeadModel")
    models.their_tokenizer.chat_template = models.our_tokenizer.chat_template = TEMPLATE
    theirs, ours = both(models, "text-generation", **GREEDY)
    assert ours(chat) == theirs(chat)
    assert ours(chat, return_full_text=False) == theirs(chat, return_full_text=False)


@pytest.mark.parametrize("pad", [None, 50256])
@pytest.mark.parametrize("problem", [None, "regression", "multi_label_classification"])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"top_k": None}, {"function_to_apply": "none"}], ids=str
)
def test_text_classification(pair, problem, options, pad):
    models = pair("ForSequenceClassification", num_labels=4, problem_type=problem, pad_token_id=pad)
    theirs, ours = both(models, "text-classification")
    expected = [theirs(text, **options) for text in TEXTS]
    assert_same([ours(text, **options) for text in TEXTS], expected)
    single = [answer[0] for answer in expected] if "top_k" not in options else expected
    for size in (1, 3):
        assert_same(ours(TEXTS, batch_size=size, **options), single)


def test_pairs_of_texts(pair):
    theirs, ours = both(pair("ForSequenceClassification", num_labels=3), "text-classification")
    question = {"text": "Is it?", "text_pair": "It is."}
    assert_same(ours(question), [theirs(question)])


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "max", "average"])
@pytest.mark.parametrize("ignored", [None, ["B-LOC", "I-PER"]])
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_token_classification(pair, strategy, ignored):
    models = pair("ForTokenClassification", num_labels=5, id2label=LABELS)
    options = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    theirs, ours = both(models, "token-classification", **{k: v for k, v in options.items() if v is not None})
    # Of words that are joined transformers decodes twice what it decodes once of tokens: ASCII survives that.
    texts = [text.replace("ü", "u") for text in TEXTS] if strategy in ("first", "max", "average") else TEXTS
    expected = [theirs(text) for text in texts]
    assert any(expected)
    assert_same(ours(texts, batch_size=3), expected)
    assert_same(ours(texts[0]), expected[0])


def test_feature_extraction(pair):
    theirs, ours = both(pair("Model"), "feature-extraction")
    expected = [torch.tensor(theirs(text)) for text in TEXTS]
    for actual, features in zip(ours(TEXTS, batch_size=3, return_tensors=True), expected, strict=True):
        assert_close(actual, features, atol=1e-5, rtol=1e-5)
    assert_same(ours(TEXTS[1]), expected[1].tolist())


def by_hand(pair, question, context, longest=15):
    """The best span, by trying each, of a context that needs no parts."""
    asked = pair.their_tokenizer(question).input_ids
    told = pair.their_tokenizer(context, return_offsets_mapping=True)
    output = pair.theirs(torch.tensor([asked + told.input_ids]))
    starts = output.start_logits[0, len(asked) :].softmax(0).tolist()
    ends = output.end_logits[0, len(asked) :].softmax(0).tolist()
    spans = [
        (starts[i] * ends[j], told.offset_mapping[i][0], told.offset_mapping[j][1])
        for i in range(len(starts))
        for j in range(i, min(len(starts), i + longest))
    ]
    return sorted(spans, reverse=True)


@torch.no_grad()
def test_question_answering(pair):
    """The expectation is every span tried by hand: transformers has dropped this pipeline."""
    models = pair("ForQuestionAnswering")
    answer = pipeline("question-answering", model=models.ours, tokenizer=models.our_tokenizer, **CPU)
    question = "Where does John live?"
    for longest in (1, 4, 15):
        found = answer(question=question, context=TEXTS[0], max_answer_len=longest)
        score, start, end = by_hand(models, question, TEXTS[0], longest)[0]
        assert found["score"] == pytest.approx(score, rel=1e-4)
        assert found["answer"] == TEXTS[0][start:end].strip() == TEXTS[0][found["start"] : found["end"]]
    several = answer({"question": question, "context": TEXTS[0]}, top_k=5)
    expected = by_hand(models, question, TEXTS[0])[:5]
    assert [found["score"] for found in several] == pytest.approx([span[0] for span in expected], rel=1e-4)
    pairs = [{"question": question, "context": text} for text in TEXTS]
    assert answer(pairs) == [answer(pair) for pair in pairs]
    assert answer(question=[question] * 3, context=TEXTS) == answer(pairs)


@torch.no_grad()
def test_long_contexts_are_read_in_parts_that_overlap(pair):
    models = pair("ForQuestionAnswering")
    answer = pipeline("question-answering", model=models.ours, tokenizer=models.our_tokenizer, **CPU)
    context = " ".join(f"Word{i} of many" for i in range(60))
    found = answer(question="Which?", context=context, top_k=3)
    assert len(found) == 3
    for span in found:
        assert context[span["start"] : span["end"]] == span["answer"] != ""
    nothing = answer(question="Which?", context=context, handle_impossible_answer=True, top_k=10**6)
    assert [span for span in nothing if not span["answer"]]


def test_generators_are_read_as_answers_are_taken(pair):
    _, ours = both(pair("ForSequenceClassification", num_labels=3, pad_token_id=50256), "text-classification")
    read = []

    def texts():
        for i in itertools.count():
            read.append(i)
            yield f"text number {i}"

    answers = ours(texts(), batch_size=2)
    first = [next(answers) for _ in range(3)]
    assert read == [0, 1, 2, 3]
    assert_same(first, ours([f"text number {i}" for i in range(3)]))
    assert torch.is_inference_mode_enabled() is False


def test_more_questions_than_parts_at_once(pair):
    """What is read together with what does not show: contexts of one part and of many."""
    models = pair("ForQuestionAnswering")
    answer = pipeline("question-answering", model=models.ours, tokenizer=models.our_tokenizer, **CPU)
    long = " ".join(f"Word{i} of many" for i in range(60))
    pairs = [{"question": "Which?", "context": text} for text in (TEXTS[0], long, TEXTS[1], TEXTS[2])]
    expected = [answer(pair, top_k=2, doc_stride=10) for pair in pairs]
    for size in (2, 3, 4):
        assert_same(answer(pairs, batch_size=size, top_k=2, doc_stride=10), expected)


def test_what_has_only_indices_is_read_as_well(pair):
    _, ours = both(pair("Model"), "feature-extraction")

    class Texts(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return TEXTS[index]

    assert list(ours(Texts())) == ours(TEXTS)


@pytest.mark.parametrize("task, head", [("ner", "ForTokenClassification"), ("feature-extraction", "Model")])
def test_texts_that_cannot_be_read(pair, task, head):
    models = pair(head)
    reads = pipeline(task, model=models.ours, tokenizer=models.our_tokenizer, **CPU)
    with pytest.raises(ValueError, match="the text is empty"):
        reads(["a", ""], batch_size=2)
    with pytest.raises(ValueError, match="requires texts, got None"):
        reads(["a", None])
    with pytest.raises(TypeError, match="'colour'"):
        reads("a", colour="red")


def test_what_no_text_is_generated_from(pair):
    models = pair("LMHeadModel")
    generate = pipeline("text-generation", model=models.ours, tokenizer=models.our_tokenizer, **CPU)
    for wrong, said in (
        ((3, {}), "text-generation requires texts, got 3"),
        (("a", {"batch_size": 0}), "batch_size must be at least 1"),
        (("a", {"return_full_text": True, "return_tensors": True}), "only one of return_full_text"),
        (("a", {"tools": [{"type": "function"}]}), "tools: only for conversations"),
        ((CHATS[0], {"prefix": "b"}), "prefix: only for texts"),
        (("word " * 60, {"handle_long_generation": "hole"}), "256 new ones leave no room for a prompt"),
    ):
        with pytest.raises(ValueError, match=said):
            generate(wrong[0], **wrong[1])
    with pytest.raises(TypeError, match="max_new_tocens"):
        generate("Hello", max_new_tocens=3)


def test_a_model_without_positions_reads_any_length(pair):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50257, "hidden_size": 32, "n_layer": 1, "n_head": 4}
    theirs = transformers.BloomForCausalLM(transformers.BloomConfig(**sizes)).eval()
    ours = torchgguf.BloomForCausalLM(torchgguf.BloomConfig(**sizes)).eval()
    ours.load_state_dict(theirs.state_dict())
    models = pair("LMHeadModel")._replace(theirs=theirs, ours=ours)
    one, other = both(models, "text-generation", do_sample=False, handle_long_generation="hole")
    one.tokenizer.model_max_length = 10**9
    assert other("word " * 300, return_full_text=False) == one("word " * 300, return_full_text=False)

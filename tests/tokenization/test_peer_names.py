"""The public names of transformers' tokenizers and encodings are here too, or there is a reason."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.tokenization.folders import FOLDERS
from torchgguf import tokenization
from torchgguf.tokenization import AddedToken, AutoTokenizer, BatchEncoding, Tokenizer

# reason: the names that are not here for it
ABSENT: dict[str, dict[str, str]] = {
    "tokenizer": {
        "converts older files into tokenizer.json, which loading does": """
            can_save_slow_tokenizer convert_added_tokens convert_to_native_format pretrained_vocab_files_map
            slow_tokenizer_class vocab_files_names
        """,
        "state of transformers' own loading": "backend files_loaded init_inputs",
        "sets what calls state here": "set_truncation_and_padding",
        "rebuilds what add_bos_token and add_eos_token set here": "update_post_processor",
        "the class of the library's model; backend_tokenizer.model is it": "model",
        "trains another tokenizer": "train_new_from_iterator",
        "uploads": "push_to_hub",
        "registers code of a repository, which is never run": "register_for_auto_class",
        "part of save_pretrained": "save_chat_templates",
        "is apply_chat_template, twice": "encode_message_with_chat_template",
        "reads answers by a grammar of transformers": """
            get_response_parser parse_response response_template
        """,
        "spoils what it is for, by its own name": """
            clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
        """,
    },
    "encoding": {
        "objects of the tokenizers library, which know nothing of what is added or padded": "encodings",
    },
    "call": {
        "options that a call has itself": "tokenizer_kwargs",
    },
    "decode": {"**kwargs of which nothing is read": "kwargs"},
    "batch_decode": {},
    "encode": {},
    "apply_chat_template": {},
    "pad": {},
    "add_tokens": {},
    "add_special_tokens": {},
    "save_pretrained": {
        "one layout is written": "save_format",
        "**kwargs for uploads": "kwargs",
    },
    "classes": {
        "tokenizers of models and kinds that are not here": """
            AlbertTokenizer BartTokenizer BartTokenizerFast BarthezTokenizer BartphoTokenizer
            BasicTokenizer BertGenerationTokenizer BertJapaneseTokenizer BertweetTokenizer
            BigBirdTokenizer BioGptTokenizer BlenderbotSmallTokenizer BlenderbotTokenizer ByT5Tokenizer
            CLIPTokenizer CTRLTokenizer CamembertTokenizer CanineTokenizer CharacterTokenizer
            ClvpTokenizer CodeGenTokenizer ConvBertTokenizer CpmAntTokenizer CpmTokenizer CpmTokenizerFast
            DPRContextEncoderTokenizer DPRContextEncoderTokenizerFast DPRQuestionEncoderTokenizer
            DPRQuestionEncoderTokenizerFast DPRReaderTokenizer DPRReaderTokenizerFast DebertaTokenizer
            DebertaV2Tokenizer DiaTokenizer EsmTokenizer EsmcTokenizer FNetTokenizer FNetTokenizerFast
            FSMTTokenizer FastSpeech2ConformerTokenizer FlaubertTokenizer FunnelTokenizer
            GPTNeoXJapaneseTokenizer GPTSw3Tokenizer HerbertTokenizer LasrTokenizer LayoutLMv2Tokenizer
            LayoutLMv3Tokenizer LayoutLMv3TokenizerFast LayoutXLMTokenizer LukeTokenizer M2M100Tokenizer
            MBart50Tokenizer MBartTokenizer MLukeTokenizer MarianTokenizer MarkupLMTokenizer
            MarkupLMTokenizerFast MecabTokenizer MgpstrTokenizer MobileBertTokenizer
            MobileBertTokenizerFast MyT5Tokenizer NllbTokenizer NougatTokenizer OpenAIGPTTokenizer
            PLBartTokenizer ParakeetTokenizer PegasusTokenizer PerceiverTokenizer PhobertTokenizer
            Pop2PianoTokenizer ProphetNetTokenizer Qwen3_5Tokenizer RagTokenizer ReformerTokenizer
            RemBertTokenizer RoCBertTokenizer RoFormerTokenizer RoFormerTokenizerFast SeamlessM4TTokenizer
            Siglip2Tokenizer SiglipTokenizer Speech2TextTokenizer SpeechT5Tokenizer SplinterTokenizer
            SqueezeBertTokenizer SqueezeBertTokenizerFast TapasTokenizer Tipsv2Tokenizer UdopTokenizer
            VideoPrismTokenizer VitsTokenizer Wav2Vec2CTCTokenizer Wav2Vec2PhonemeCTCTokenizer
            WhisperTokenizer WordpieceTokenizer XGLMTokenizer XLMTokenizer XLNetTokenizer
        """,
    },
}
METHODS = ("decode", "batch_decode", "encode", "apply_chat_template", "pad", "add_tokens")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tokenizer]:
    folder = tmp_path_factory.mktemp("names") / "gpt2"
    FOLDERS["gpt2"][0](folder)
    return transformers.AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def _public(value: Any) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


def _parameters(method: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(method).parameters)


def _lacking(theirs: Any, ours: Any) -> set[str]:
    known = _parameters(ours)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    return set() if takes_all else _parameters(theirs).keys() - known.keys()


def _check(area: str, absent: set[str]) -> None:
    stated = [name for names in ABSENT[area].values() for name in names.split()]
    assert sorted(absent - {*stated}) == [], "new in transformers: add them, or state why not"
    assert sorted({*stated} - absent) == [], "here now, or gone from transformers: remove them"
    assert len(stated) == len({*stated})


def test_tokenizers(pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = pair
    _check("tokenizer", {name for name in _public(theirs) if not hasattr(ours, name)})


def test_encodings(pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = (tokenizer("the software") for tokenizer in pair)
    _check("encoding", {name for name in _public(theirs) if not hasattr(ours, name)})


def test_options_of_calls(pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = pair
    _check("call", _parameters(theirs.__call__).keys() - _parameters(ours.__call__).keys() - {"kwargs"})


@pytest.mark.parametrize("name", [*METHODS, "add_special_tokens", "save_pretrained"])
def test_options_of_methods(name: str, pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = (getattr(tokenizer, name) for tokenizer in pair)
    _check(name, _lacking(theirs, ours))


@pytest.mark.parametrize("name", ["__call__", *METHODS, "add_special_tokens"])
def test_positions_are_those_of_transformers(name: str, pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = (
        [p.name for p in _parameters(getattr(tokenizer, name)).values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        for tokenizer in pair
    )
    both = [theirs.index(name) for name in ours if name in theirs]
    assert both[:2] == [*range(len(both[:2]))]


def test_classes() -> None:
    theirs = {name for name in dir(transformers) if _is_tokenizer(name)}
    ours = {name for name in dir(tokenization) if _is_tokenizer(name)}
    _check("classes", theirs - ours)
    names = Path(tokenization.__file__ or "").with_name("names.py").read_text()
    for name in ours - {"AutoTokenizer", "GPT2Tokenizer", "GPT2TokenizerFast", "Tokenizer"}:
        assert getattr(tokenization, name) is Tokenizer
        assert name in names


def _is_tokenizer(name: str) -> bool:
    return (
        "Tokenizer" in name
        and name != "PreTokenizer"
        and name.endswith(("Tokenizer", "TokenizerFast", "TokenizerBase"))
    )


def test_every_name_is_the_class_of_every_tokenizer(pair: tuple[Any, Tokenizer], tmp_path: Path) -> None:
    ours = pair[1]
    assert isinstance(ours, tokenization.PreTrainedTokenizerFast)
    ours.save_pretrained(tmp_path)
    again = tokenization.LlamaTokenizer.from_pretrained(tmp_path)
    assert again.encode("the software") == ours.encode("the software")
    of_file = tokenization.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[P]", padding_side="left"
    )
    assert of_file.encode("the software") == ours.encode("the software")
    assert (of_file.pad_token, of_file.pad_token_id, of_file.padding_side) == ("[P]", len(ours), "left")
    of_object = Tokenizer(tokenizer_object=ours.backend_tokenizer)
    assert of_object.encode("the software") == ours.encode("the software")
    with pytest.raises(TypeError, match="pass one of source, tokenizer_file and tokenizer_object"):
        Tokenizer()


def test_targets(pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = pair
    for options in (
        {"text": "the software", "text_target": "the license"},
        {"text": ["the software", "a"], "text_target": ["the license", "b c"], "padding": True},
        {"text_target": "the license"},
    ):
        for tokenizer in pair:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        assert dict(ours(**options)) == dict(theirs(**options))


def test_encodings_are_made_as_in_transformers(pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = pair
    for one in (theirs("the software", "a license"), ours("the software", "a license")):
        assert one.n_sequences == 2
        assert one.is_fast
        assert one.data["input_ids"] == one["input_ids"]
    fields = {"input_ids": [[1, 2]], "labels": [3]}
    for kind in (transformers.BatchEncoding, BatchEncoding):
        made = kind(fields, tensor_type="pt")
        assert made["input_ids"].shape == (1, 2)
        assert made.n_sequences is None
        assert not made.is_fast
        assert kind({"input_ids": [1]}, tensor_type="np", prepend_batch_axis=True)["input_ids"].shape == (
            1,
            1,
        )
    with pytest.raises(ValueError, match="encoding= is unsupported"):
        BatchEncoding({}, encoding=[])  # type: ignore[arg-type]


def test_attributes_that_tools_touch(pair: tuple[Any, Tokenizer]) -> None:
    theirs, ours = pair
    text = "the software , isn 't free"
    assert ours.clean_up_tokenization(text) == theirs.clean_up_tokenization(text)
    assert [*ours.SPECIAL_TOKENS_ATTRIBUTES] == [*theirs.SPECIAL_TOKENS_ATTRIBUTES]
    assert ours.backend_tokenizer.encode(text).ids == theirs.backend_tokenizer.encode(text).ids
    ours.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    assert ours.init_kwargs.items() >= {"tokenizer_class": ours.init_kwargs["tokenizer_class"]}.items()
    assert ours.decode([65], spaces_between_special_tokens=False) == theirs.decode([65])
    assert ours.add_tokens(AddedToken("<one>")) == 1

"""The mappings of classes that examples of transformers read, beside transformers' own."""

import pytest
import transformers

import torchgguf
from tests.models.classes import WITHOUT_PEER
from torchgguf.models import registry

MAPPINGS = [
    "MODEL_MAPPING",
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
]


def with_peers():
    """The config classes that transformers has, too."""
    return [(kind, each) for kind, each in torchgguf.CONFIG_MAPPING.items() if kind not in WITHOUT_PEER]


def test_configs():
    assert [*torchgguf.CONFIG_MAPPING] == [*registry.MODEL_TYPES]
    assert len(torchgguf.CONFIG_MAPPING) == len(registry.MODEL_TYPES)
    for model_type, found in with_peers():
        assert found.__name__ == transformers.CONFIG_MAPPING[model_type].__name__
    assert "opt" not in torchgguf.CONFIG_MAPPING


# Classes of transformers that are not here: decoders made of encoders; of T5 some heads.
OTHERS = {
    "BertLMHeadModel": None,
    **{
        f"{family}For{task}": None
        for family in ("T5", "UMT5")
        for task in ("QuestionAnswering", "SequenceClassification", "TokenClassification")
    },
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_models(name):
    ours, theirs = getattr(torchgguf, name), getattr(transformers, name)
    assert len(ours) == len([*ours.keys()])
    for model_type, config_class in with_peers():
        expected = theirs.get(transformers.CONFIG_MAPPING[model_type], None)
        actual = ours.get(config_class)
        wanted = getattr(expected, "__name__", None)
        assert getattr(actual, "__name__", None) == OTHERS.get(wanted, wanted), model_type
    assert torchgguf.PreTrainedConfig not in ours

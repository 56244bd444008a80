"""docs/models.md lists what is supported, and nothing else."""

import re

from tests.support import ROOT
from torchgguf.models import registry

HEADS = {
    "causal LM": "causal_lm",
    "texts to texts": "seq2seq_lm",
    "sequence": "sequence_classification",
    "tokens": "token_classification",
    "spans": "question_answering",
}


def test_each_architecture_is_there_with_its_heads():
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| `([\w-]+)` \| ([^|]+) \|$", page(), re.M)
    expected = {(kind, gguf) for gguf, kinds in registry.ROWS.items() for kind in kinds}
    assert {(kind, gguf) for kind, gguf, _ in rows} == expected
    assert len(rows) == len(expected)
    for kind, gguf, heads in rows:
        found = registry.architectures_of_type(kind)
        classes = next(each for each in found if gguf in (each.gguf, *each.other_ggufs)).classes
        named = set() if heads == "none" else {HEADS[head] for head in heads.split(", ")}
        assert named == classes.keys() - {"base"}, kind


def page() -> str:
    return (ROOT / "docs" / "models.md").read_text()

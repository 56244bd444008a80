"""Every public name of transformers that matters to scripts is here, or stands in a table with a reason."""

from collections.abc import Callable

import pytest

from tests.peers import names
from tests.peers.absent import ABSENT

AREAS: dict[str, Callable[..., set[str]]] = {
    "models": names.models,
    "configs": names.configs,
    "generation_configs": names.generation_configs,
    "outputs": names.outputs,
    "caches": names.caches,
    "forward": names.forward,
    "generate": names.generate,
    "from_pretrained": names.from_pretrained,
    "save_pretrained": names.save_pretrained,
    "top_level": names.top_level,
}


def test_all_areas_are_in_the_table():
    assert ABSENT.keys() == AREAS.keys()


@pytest.mark.parametrize("area", AREAS)
def test_each_name_is_here_or_in_the_table(area, tmp_path):
    absent = AREAS[area](tmp_path) if area.endswith("_pretrained") else AREAS[area]()
    stated = [name for text in ABSENT[area].values() for name in text.split()]
    new, here = " ".join(sorted(absent - {*stated})), " ".join(sorted({*stated} - absent))
    assert not new, f"new in transformers: add them, or state in tests/peers/absent.py why not: {new}"
    assert not here, f"here now, or gone from transformers: remove them from tests/peers/absent.py: {here}"
    assert len(stated) == len({*stated})


def test_the_page_states_the_number():
    count = sum(len(text.split()) for reasons in ABSENT.values() for text in reasons.values())
    assert f"{count} names" in (names.ROOT / "docs" / "from-transformers.md").read_text()

"""`Problems`: what is wrong with training data, found before the training starts."""

from collections.abc import Iterator
from dataclasses import dataclass, field

_PLACES_SHOWN = 5


@dataclass
class Problems:
    """What is wrong with records, grouped by kind.

    Attributes:
        found: the places of the records, by what is wrong with them.
    """

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, place: str, what: str) -> None:
        """Note a problem.

        Args:
            place: of the record, such as `"line 17"`.
            what: is wrong with it, and what happens to it: a text that continues the place.
        """
        self.found.setdefault(what, []).append(place)

    def __bool__(self) -> bool:
        return bool(self.found)

    def __len__(self) -> int:
        return sum(map(len, self.found.values()))

    def lines(self) -> Iterator[str]:
        """Return a line for each kind of problem, with the first places."""
        for what, places in self.found.items():
            shown = ", ".join(places[:_PLACES_SHOWN])
            more = len(places) - _PLACES_SHOWN
            yield f"{shown}{f' and {more} more' if more > 0 else ''}: {what}"

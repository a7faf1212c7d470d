"""What was drawn for each sample, for the captions of a preview: silent unless somebody records."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor


@dataclass(eq=False)
class Record:
    """Notes in the order in which they were taken."""

    notes: list[tuple[str, int | None, list[str]]] = field(default_factory=list)

    def captions(self, sample: int) -> tuple[list[str], list[str], list[str]]:
        """What was drawn for a sample's pair, for its v1 and for its v2: of notes of one name the first is v1's.

        A name noted once belongs to the pair, unless it was noted `of_view` 1 or 2.
        """
        pair: list[str] = []
        views: tuple[list[str], list[str]] = ([], [])
        names = [name for name, view, _ in self.notes if view is None]
        seen: set[str] = set()
        for name, view, words in self.notes:
            if view is not None:
                where = views[view - 1]
            else:
                where = pair if names.count(name) == 1 else views[name in seen]
                seen.add(name)
            if words[sample]:
                where.append(f"{name} {words[sample]}")
        return pair, *views


_record: ContextVar[Record | None] = ContextVar("record", default=None)
_view: ContextVar[int | None] = ContextVar("view", default=None)


@contextmanager
def recording() -> Iterator[Record]:
    """Everything noted inside the `with` is kept in the record."""
    record = Record()
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


@contextmanager
def of_view(number: Literal[1, 2]) -> Iterator[None]:
    """Everything noted inside the `with` belongs to this view, also what the other view has no note of."""
    token = _view.set(number)
    try:
        yield
    finally:
        _view.reset(token)


def is_recording() -> bool:
    """Whether anybody will read what is noted; what would be computed for a note alone asks first."""
    return _record.get() is not None


def note(
    name: str,
    *values: Shaped[Tensor, "B *n"],
    unit: str = "",
    where: Bool[Tensor, " B"] | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Say what was drawn for each sample, and with `where` for which of them it counts; does nothing unless recorded.

    Of a place comes first how far across, then how far down. With `names` the values are numbers of names, which are shown in
    their place.
    """
    record = _record.get()
    if record is None:
        return
    rows = torch.cat([value.reshape(len(value), -1) for value in values], dim=1).tolist()
    happened = [True] * len(rows) if where is None else where.tolist()
    words = [_words(row, unit, names) if counts else "" for row, counts in zip(rows, happened, strict=True)]
    record.notes.append((name, _view.get(), words))


def in_digits(number: float | int) -> str:
    """Three digits, and all there are before the point."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _words(numbers: list[Any], unit: str, names: Sequence[str] | None) -> str:
    words = ", ".join(in_digits(number) if names is None else names[number] for number in numbers)
    return f"{words} {unit}".strip()

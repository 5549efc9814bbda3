"""Tables for terminals of any width: no number is cut, and a table that is too wide comes in parts."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.table import Column, Table

# Longer words of a name or a text may be broken.
_LONGEST_WORD = 20


class _Width(NamedTuple):
    """Letters of a column: the fewest that keep numbers and words whole, and those that need no second line."""

    fewest: int
    enough: int


def fit_to_width(table: Table, width: int) -> Iterator[tuple[Table, int]]:
    """The table, or parts of its columns that fit a terminal, each part after the columns that name its rows.

    Args:
        table: columns of numbers are those that are set to the right.
        width: of the terminal, in letters.

    Yields:
        Each part with its width. A part of one column of numbers can be wider than the terminal.
    """
    padding = table.padding[1] + table.padding[3]
    widths = [_width_of(column) for column in table.columns]

    def table_width(letters: list[int]) -> int:
        edges = 0 if table.pad_edge else padding
        return 1 + sum(letters) + len(letters) * (padding + 1) - edges

    names = list(takewhile(lambda column: table.columns[column].justify == "left", range(len(widths)))) or [0]
    parts = [list(names)]
    for column in range(len(names), len(widths)):
        wider = [*parts[-1], column]
        if len(parts[-1]) > len(names) and table_width([widths[each].fewest for each in wider]) > width:
            parts.append(list(names))
        parts[-1].append(column)

    for part in parts:
        letters = [widths[column].enough for column in part]
        fewest = [widths[column].fewest for column in part]
        while table_width(letters) > width and letters != fewest:
            # The column with most to spare.
            letters[max(range(len(part)), key=lambda place: letters[place] - fewest[place])] -= 1
        chosen = copy(table)
        chosen.title = table.title if part is parts[0] else "(further columns)"
        chosen.caption = table.caption if part is parts[-1] else None
        chosen.columns = [_column(table.columns[each], place, letters[place]) for place, each in enumerate(part)]
        yield chosen, table_width(letters)


def _width_of(column: Column) -> _Width:
    from rich.cells import cell_len

    cells, header = [str(cell) for cell in column.cells], str(column.header)
    words = " ".join([header] if column.justify == "right" else [header, *cells]).split()
    fewest = min(max(map(cell_len, words), default=1), _LONGEST_WORD)
    if column.justify == "right":
        fewest = max([fewest, *map(cell_len, cells)])
    lines = [line for text in (header, *cells) for line in text.split("\n")]
    return _Width(fewest, max(fewest, *map(cell_len, lines)))


def _column(column: Column, place: int, letters: int) -> Column:
    """The column of a part: texts are folded between words, and so is the heading of numbers."""
    return replace(column, _index=place, width=letters, no_wrap=False, overflow="fold")

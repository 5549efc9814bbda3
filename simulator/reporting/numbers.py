"""How numbers are written in tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable

UNDEFINED = "-"


def number_text(value: float | None, deviation: float | None = None, decimals: int | None = None) -> str:
    """A number, with its deviation in brackets; a dash where it is undefined.

    Args:
        value: the number, or None.
        deviation: its standard deviation or standard error, or None.
        decimals: of a column whose numbers stand below each other: so many decimals, fewer where a large value needs
            none of them, and a real minus sign. Default: about three significant digits.
    """
    if value is None:
        return UNDEFINED
    size = abs(value)
    if decimals is not None:
        before_point = math.floor(math.log10(size)) if size >= 1 else 0
        text = f"{value:.{min(decimals, max(0, 4 - before_point))}f}" if size < 1e7 else f"{value:.3g}"
        text = (text.removeprefix("-") if float(text) == 0 else text).replace("-", "\u2212")
    else:
        rough = size >= 1e5 or 1e-6 <= size < 1e-3
        digits = ".1e" if rough else ".0f" if size >= 100 else ".2f" if size >= 10 else ".3f"
        text = f"{value:{digits}}".replace("-0.000", "0.000")
    return text if deviation is None else f"{text} ({number_text(deviation, decimals=decimals)})"


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """A number with its interval in square brackets; a dash where it is undefined."""
    if value is None or low is None:
        return number_text(value)
    return f"{number_text(value)} [{number_text(low)}, {number_text(high)}]"


def column_decimals(values: Iterable[float | None]) -> int:
    """Decimals that give the smallest value of a column three significant digits, six at most."""
    sizes = [abs(value) for value in values if value]
    return min(6, max(0, 2 - math.floor(math.log10(min(sizes))))) if sizes else 3

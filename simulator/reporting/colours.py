"""One colour and one dash for each method, so that a method looks the same in every figure.

The colours are those of Okabe and Ito, which people with the common kinds of colour blindness can tell
apart; their yellow is darkened because it cannot be seen on white. True values have no entry: they are black
on a light page and white on a dark one. On a dark page colours that would be lost are lightened. Dashes tell lines
apart where colours do not.
"""

from __future__ import annotations

import hashlib

from simulator.baselines import BASELINES

TRUTH = "truth"
"""What true values are called in figures: they are black."""

METHOD_COLOURS: dict[str, str] = {
    "random": "#5F5F5F",
    "persistence": "#999999",
    "mean_curve": "#56B4E9",
    "mean_curve_shifted": "#2E7FA8",
    "simfluence_additive": "#F2C14E",
    "simfluence_multiplicative": "#B5791A",
    "simfluence_linear": "#E69F00",
    "simfluence_linear_adamw": "#8A5A00",
    "tracin_cp_10": "#9B7EDE",
    "tracin_cp_all": "#6A3FB5",
    "grad_dot": "#C2447A",
    "update_dot": "#7A1F4B",
    "tracin_cp_published": "#B58BC9",
    "tangent_targets": "#3E8E7E",
    "kernel_tracin": "#A569BD",
    "kernel_sum": "#D98880",
    "exact_first_order": "#404040",
    "markov_1": "#D55E00",
    "memory": "#0072B2",
    "memory_label": "#B0A000",
    "memory_sentence": "#CC79A7",
    "memory_gradient": "#009E73",
    "tangent": "#3B3BD6",
}
"""Method name -> colour as #RRGGBB."""

METHOD_DASHES: dict[str, str] = {
    "persistence": "dot",
    "mean_curve": "dash",
    "mean_curve_shifted": "dashdot",
    "simfluence_additive": "dot",
    "simfluence_multiplicative": "dash",
    "simfluence_linear": "longdash",
    "simfluence_linear_adamw": "dashdot",
    "tracin_cp_10": "dash",
    "grad_dot": "dot",
    "update_dot": "longdash",
    "tracin_cp_published": "dashdot",
    "memory_label": "dashdot",
    "tangent_targets": "dashdot",
    "kernel_tracin": "dash",
    "kernel_sum": "dot",
}
"""Method name -> plotly dash name, for the methods that are not drawn solid."""

DASH_ARRAYS: dict[str, str] = {
    "solid": "none",
    "dot": "3 3",
    "dash": "7 4",
    "longdash": "11 4",
    "dashdot": "8 3 3 3",
}
"""Plotly dash name -> SVG `stroke-dasharray`, for keys drawn outside plotly."""

MATPLOTLIB_DASHES: dict[str, str | tuple[float, tuple[float, ...]]] = {
    "solid": "-",
    "dot": (0, (1, 1.5)),
    "dash": (0, (4, 2)),
    "longdash": (0, (7, 2)),
    "dashdot": (0, (5, 2, 1, 2)),
}
"""Plotly dash name -> matplotlib `linestyle`."""

# Of the baselines, those that come near the simulators.
_BASELINES_DRAWN_AT_FIRST = ("mean_curve", "simfluence_linear", "update_dot")
_OTHER_COLOURS = ("#44AA99", "#AA4499", "#8C6D31", "#CC6677", "#7A7AD6", "#7F9A2B", "#5B8FA8", "#B5651D")
_OTHER_DASHES = ("solid", "dash", "dashdot", "longdash")
# The lightest background that a dark page has behind lines, and what a line must stand out by (WCAG 2 asks for 3).
_DARK_PAGE = (0x1D, 0x21, 0x25)
_CONTRAST = 4.0


def method_colour(method: str) -> str:
    """The colour of a method or of `truth` as #RRGGBB; that of an unknown name depends on the name alone."""
    if method == TRUTH:
        return "#000000"
    return METHOD_COLOURS.get(method) or _OTHER_COLOURS[_digest(method)[0] % len(_OTHER_COLOURS)]


def dark_colour(method: str) -> str:
    """The colour of a method or of `truth` on a dark page: lightened until it can be seen there."""
    red, green, blue = (int(method_colour(method)[at : at + 2], 16) for at in (1, 3, 5))
    if method == TRUTH:
        return "#FFFFFF"
    for share in range(0, 100, 5):
        mixed = tuple(round(each + (255 - each) * share / 100) for each in (red, green, blue))
        if (_luminance(mixed) + 0.05) / (_luminance(_DARK_PAGE) + 0.05) >= _CONTRAST:
            break
    return "#{:02X}{:02X}{:02X}".format(*mixed)


def method_dash(method: str) -> str:
    """The plotly dash name of a method's line, a key of `DASH_ARRAYS`."""
    if method in METHOD_COLOURS or method == TRUTH:
        return METHOD_DASHES.get(method, "solid")
    return _OTHER_DASHES[_digest(method)[1] % len(_OTHER_DASHES)]


def drawn_at_first(method: str) -> bool:
    """Whether a figure shows a method before it is clicked: every simulator, and the strongest baselines."""
    return method in _BASELINES_DRAWN_AT_FIRST or method not in BASELINES


def _luminance(colour: tuple[int, ...]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [each / 255 for each in colour]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _digest(method: str) -> bytes:
    return hashlib.sha256(method.encode("utf-8", "surrogatepass")).digest()

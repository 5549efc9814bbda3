"""What the rankings of suspects are called, without anything that takes long to import."""

from __future__ import annotations

LABELS = {
    "random": "random (10 shuffles)",
    "tracin_self": "TracIn-CP self-influence",
    "gptfluence_alpha": "GPTfluence self alpha",
    "memory_left_out": "memory, simulated loss when left out",
    "measured_left_out": "measured loss when left out",
    "ridge_left_out": "labels of the others, by ridge regression",
}
SCORES = tuple(name for name in LABELS if name != "random")
"""The rankings that are made of scores, in the order of tables."""

"""Which encoders there are, and which settings each has: known before any library that encodes is imported."""

from __future__ import annotations

from gptdynamics.errors import SettingsError

ENCODERS = ("sentence", "causal_lm", "gradient", "label", "index")
POOLINGS = ("mean", "first", "last")
# Encoders of which the model is a setting; `gradient` has the base model of the runs.
WITH_MODEL = ("sentence", "causal_lm")


def check_encoder(kind: str, model: str | None, pooling: str | None) -> None:
    """Raise SettingsError if there is no such encoder, or it does not have these settings; see `make_encoder`."""
    if kind not in ENCODERS:
        raise SettingsError(f"unknown encoder {kind!r}; known encoders: {', '.join(ENCODERS)}")
    for name, value in (("encoder_model", model), ("pooling", pooling)):
        if value is not None and kind not in WITH_MODEL:
            raise SettingsError(f"{name}={value!r} is a setting of {' and '.join(WITH_MODEL)} encoders, not of {kind}")
    if pooling is not None and pooling not in POOLINGS:
        raise SettingsError(f"pooling={pooling!r} must be one of {', '.join(POOLINGS)}")
    if pooling == "last" and kind == "sentence":
        raise SettingsError("pooling='last' is for causal_lm: in a sentence encoder the last token is a separator")

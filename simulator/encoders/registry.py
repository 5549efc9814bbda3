"""Encoders by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptdynamics.configs import EARLIER_SETTINGS, Tokenization
from gptdynamics.errors import SettingsError
from simulator.encoders.causal_lm import CausalLMEncoder
from simulator.encoders.encoder import Encoder
from simulator.encoders.gradient import GradientEncoder
from simulator.encoders.index import IndexEncoder
from simulator.encoders.label import LabelEncoder
from simulator.encoders.sentence import SentenceEncoder
from simulator.settings.encoders import check_encoder

# Encoders that give the example's tokens to a causal language model.
TOKENIZING = ("causal_lm", "gradient")


def make_encoder(
    kind: str,
    base_model: str,
    seed: int = 0,
    model: str | None = None,
    pooling: str | None = None,
    tokenization: Tokenization = "joined",
) -> Encoder:
    """The encoder called `kind`.

    Args:
        kind: one of `ENCODERS`.
        base_model: whose gradients the `gradient` encoder takes; the default model of `causal_lm`.
        seed: of the gradient projection.
        model: of `sentence`: a sentence-transformers model, default MiniLM; of `causal_lm`: `nano`, a Pythia size, or
            any causal language model. A folder or a Hub id.
        pooling: how the states of tokens become one vector: `mean`, `first` or (`causal_lm`) `last`. Default: of
            `sentence` the model's own way, of `causal_lm` the mean.
        tokenization: of prompt and target, as the runs were trained; of `gradient` and `causal_lm`.

    Raises:
        SettingsError: no such encoder, or it does not have these settings.
    """
    check_encoder(kind, model, pooling)
    if kind == "sentence":
        return SentenceEncoder(**_given(model=model, pooling=pooling))
    if kind == "causal_lm":
        return CausalLMEncoder(model or base_model, pooling or "mean", tokenization)
    if kind == "gradient":
        return GradientEncoder(base_model, seed=seed, tokenization=tokenization)
    return LabelEncoder() if kind == "label" else IndexEncoder()


def described_encoder(description: Mapping[str, Any]) -> Encoder:
    """The encoder that a simulator was trained with, for examples that are new to it.

    Args:
        description: what the encoder said of itself (`Encoder.describe`).

    Raises:
        SettingsError: the encoder knows no other examples, or is another one here.
    """
    kind = description.get("encoder", "")
    if kind == "index":
        raise SettingsError("index vectors know no other examples than those trained on: train with another encoder")
    if kind in TOKENIZING:
        description = {"tokenization": EARLIER_SETTINGS["tokenization"]} | dict(description)
    made: Encoder
    if kind == "gradient":
        made = GradientEncoder(
            description["model"], description["width"], description["seed"], description["tokenization"]
        )
    else:
        pooling = description.get("pooling")
        made = make_encoder(
            kind,
            "",
            model=description.get("model"),
            pooling=None if pooling == "own" else pooling,
            tokenization=description.get("tokenization", "joined"),
        )
    if made.describe() != dict(description):
        raise SettingsError(
            f"this simulator was trained with encoder {dict(description)}; here it would be {made.describe()}"
        )
    return made


def _given(**settings: str | None) -> dict[str, str]:
    return {name: value for name, value in settings.items() if value is not None}

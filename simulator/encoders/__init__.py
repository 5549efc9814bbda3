"""Frozen maps from an example to a vector: `sentence`, `causal_lm`, `gradient`, `label` and `index`."""

from simulator.encoders.cache import PART, encode_cached
from simulator.encoders.encoder import Encoder
from simulator.encoders.registry import described_encoder, make_encoder
from simulator.settings.encoders import ENCODERS

__all__ = [
    "ENCODERS",
    "PART",
    "Encoder",
    "described_encoder",
    "encode_cached",
    "make_encoder",
]

"""Frozen maps from an example to a vector: `sentence`, `causal_lm`, `gradient`, `label` and `index`."""

from simulator.encoders.cache import PART, encode_cached
from simulator.encoders.encoder import Encoder
from simulator.encoders.registry import ENCODERS, POOLINGS, check_encoder, described_encoder, make_encoder

__all__ = [
    "ENCODERS",
    "PART",
    "POOLINGS",
    "Encoder",
    "check_encoder",
    "described_encoder",
    "encode_cached",
    "make_encoder",
]

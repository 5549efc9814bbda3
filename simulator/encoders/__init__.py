"""Frozen maps from an example to a vector: `sentence`, `gradient` and `label`."""

from simulator.encoders.encoder import Encoder, encode_cached
from simulator.encoders.registry import ENCODERS, make_encoder

__all__ = ["ENCODERS", "Encoder", "encode_cached", "make_encoder"]

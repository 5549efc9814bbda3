"""Every method by name, in the order of the table."""

from __future__ import annotations

from benchmarks.peers.method import Method
from benchmarks.peers.methods import (
    bergson_magic,
    bergson_trackstar,
    captum_tracin,
    dattri_methods,
    exact,
    gradients,
    kronfluence_ekfac,
    ours,
    texts,
    trak_methods,
)

_FILES = (
    ours,
    exact,
    bergson_magic,
    kronfluence_ekfac,
    bergson_trackstar,
    trak_methods,
    dattri_methods,
    captum_tracin,
    gradients,
    texts,
)
METHODS: dict[str, Method] = {method.name: method for file in _FILES for method in file.METHODS}

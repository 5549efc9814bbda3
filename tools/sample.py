"""The sample that comes with the package: a release without texts, its gradients rounded to few bits."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa

from gptdynamics.atomic import write_text
from gptdynamics.dataset.card import CARD
from gptdynamics.dataset.card_content import card_files
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import read_parquet, write_parquet
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.hub.source import SHORT_NAME

# A product is one of thousands that are added up; a vector is compared with others as it stands.
SIGNIFICANT_BITS = {"products": 6, "vector": 8}

NOTE = """
## This sample

It comes with the package `gptdynamics`, so that `load_dataset("gptdynamics", "rte_nano")` gives real dynamics in a
fresh clone. The prompts and texts of the public tasks are left out: `source` says which rows they were. Gradient
products are rounded to {products} significant bits and gradient vectors to {vector}; every other number is as it was
collected. It was made by:

```bash
make nano-release sample DATA=<folder with corpus/ and tasks/>
```
"""


def round_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Round to the nearest number of so many significant binary digits: relative error at most 2^-bits.

    Args:
        values: float32.
        bits: 2 to 24.
    """
    dropped = np.uint32(24 - bits)
    if not dropped:
        return values
    whole = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32(1) << (dropped - np.uint32(1))
    return (((whole + half) >> dropped) << dropped).view(np.float32)


def _round_gradients(path: Path) -> None:
    table = read_parquet(path)
    for name, bits in SIGNIFICANT_BITS.items():
        column = table[name].combine_chunks()
        if len(column) == column.null_count:
            continue
        flat = round_bits(column.flatten().to_numpy(zero_copy_only=False), bits)
        rounded = pa.ListArray.from_arrays(column.offsets, pa.array(flat), mask=column.is_null())
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), rounded)
    write_parquet(table, path)


def make_sample(source: Path, out: Path) -> None:
    """Make the sample of a dataset folder.

    Args:
        source: the dataset folder.
        out: where README.md, its picture, data/ and manifests/ are written.

    Raises:
        DataError: `out` holds a dataset already, or a file is damaged.
    """
    copy_without_texts(source, out)
    for path in sorted(out.glob("data/*_gradients/*.parquet")):
        _round_gradients(path)
    write_text(out / CARD, card_files(DatasetFolder(out), "", SHORT_NAME)[CARD] + NOTE.format(**SIGNIFICANT_BITS))


def main() -> None:
    """`python -m tools.sample SOURCE OUT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="dataset folder")
    parser.add_argument("out", type=Path, help="folder that gets README.md, its picture, data/ and manifests/")
    given = parser.parse_args()
    make_sample(given.source, given.out)


if __name__ == "__main__":
    main()

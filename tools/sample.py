"""The sample that comes with the package: releases without texts, their gradients rounded to few bits."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from gptdynamics.atomic import write_text
from gptdynamics.dataset.card import CARD
from gptdynamics.dataset.card_content import card_files
from gptdynamics.dataset.folder import DatasetFolder
from gptdynamics.dataset.schema import EXAMPLE_SCHEMA, read_parquet, write_parquet
from gptdynamics.dataset.withheld import copy_without_texts
from gptdynamics.errors import DataError
from gptdynamics.hub.source import SHORT_NAME
from gptdynamics.scratch import scratch_folder

# A product is one of thousands that are added up; a vector is compared with others as it stands.
SIGNIFICANT_BITS = {"products": 6, "vector": 8}

NOTE = """
## This sample

It comes with the package `gptdynamics`, so that `load_dataset("gptdynamics", "rte_nano")` gives real dynamics in a
fresh clone. The prompts and texts of the public tasks are left out: `source` says which rows they were. Gradient
products are rounded to {products} significant bits and gradient vectors to {vector}; every other number is as it was
collected. It was made by:

```bash
make nano-release smollm2-release sample DATA=<folder with corpus/ and tasks/>
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


def combine(sources: Sequence[Path], out: Path) -> None:
    """Copy dataset folders into one. They have different configs; tasks may be the same, of the same rows.

    Raises:
        DataError: two have the same config, or other rows of a task.
    """
    for source in sources:
        for path in sorted([*source.glob("data/*/*.parquet"), *source.glob("manifests/*.json")]):
            target = out / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(path, target)
            elif path.parent.name.endswith("_examples"):
                _add_examples(path, target)
            else:
                raise DataError(f"{path}: another folder has it, too. Leave the config out of one of them")


def _add_examples(path: Path, target: Path) -> None:
    """Add the rows of a file of examples to another; of those that both have, texts stay."""
    rows = {row["id"]: row for row in read_parquet(target).to_pylist()}
    for row in read_parquet(path).to_pylist():
        first_row = rows.setdefault(row["id"], row)
        if first_row["source"] != row["source"]:
            raise DataError(f"{path}: example {row['id']} is another row than in {target}")
        if not first_row["prompt"]:
            rows[row["id"]] = row
    ordered = [rows[key] for key in sorted(rows)]
    write_parquet(pa.Table.from_pylist(ordered, schema=EXAMPLE_SCHEMA), target)


def make_sample(sources: Sequence[Path], out: Path) -> None:
    """Make the sample of some dataset folders.

    Args:
        sources: the dataset folders; no config is in two of them.
        out: where README.md, its picture, data/ and manifests/ are written.

    Raises:
        DataError: `out` holds a dataset already, a file is damaged, or the folders do not fit together.
    """
    with scratch_folder() as scratch:
        combine(sources, scratch)
        copy_without_texts(scratch, out)
    for path in sorted(out.glob("data/*_gradients/*.parquet")):
        _round_gradients(path)
    write_text(out / CARD, card_files(DatasetFolder(out), "", SHORT_NAME)[CARD] + NOTE.format(**SIGNIFICANT_BITS))


def main() -> None:
    """`python -m tools.sample OUT SOURCE...`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder that gets README.md, its picture, data/ and manifests/")
    parser.add_argument("sources", type=Path, nargs="+", help="dataset folders")
    given = parser.parse_args()
    make_sample(given.sources, given.out)


if __name__ == "__main__":
    main()

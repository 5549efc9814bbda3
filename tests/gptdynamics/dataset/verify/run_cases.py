"""Damages to a run's own files, and the faults that must be named for them."""

from __future__ import annotations

import shutil

import pyarrow as pa

from tests.gptdynamics.dataset.verify.damage import (
    MIXED,
    PRODUCTS,
    ROW,
    RUN,
    TEXTS,
    VECTORS,
    Case,
    at,
    column,
    delete,
    inside,
    rows,
    same_batches_swapped,
    truncate,
)

RUN_CASES = {
    # Trajectories
    "truncated": Case("few", RUN, truncate, "", "cannot be read as Parquet (Parquet magic bytes not found"),
    "empty file": Case("few", RUN, lambda path: path.write_bytes(b""), "", "cannot be read as Parquet (Parquet"),
    "no rows": Case("few", RUN, rows(lambda table: table.slice(0, 0)), "", "it has no rows"),
    "row lost": Case("few", RUN, rows(lambda table: table.slice(0, 4)), "test_id", "4 missing"),
    "row twice": Case("few", RUN, column("test_id", at(3, 2)), "test_id", "2 more than once; 3 missing"),
    "row unknown": Case("few", RUN, column("test_id", at(4, 9)), "test_id", "4 missing; 9 unknown (there are 0 to 4)"),
    "rows moved": Case(
        "few", RUN, rows(lambda table: table.take([1, 0, 2, 3, 4])), "test_id", "not in ascending order"
    ),
    "row of another run": Case(
        "few", RUN, column("run", at(2, "0005")), "run", "rows of run 0005, but its file's name says 0004"
    ),
    "column lost": Case("few", RUN, rows(lambda table: table.drop(["accuracy"])), "accuracy", "the column is missing"),
    "column too many": Case(
        "few",
        RUN,
        rows(lambda table: table.append_column("bleu", table["loss"])),
        "bleu",
        "unexpected column",
    ),
    "column of another type": Case(
        "few",
        RUN,
        rows(lambda table: table.set_column(1, "test_id", table["test_id"].cast(pa.int64()))),
        "test_id",
        "the column is int64, not int32",
    ),
    "steps not from 0": Case(
        "few", RUN, column("step", at(1, [1, 2, 3])), "step", "test example 1: its steps begin at 1, not 0"
    ),
    "steps not increasing": Case(
        "few",
        RUN,
        column("step", at(1, [0, 2, 2])),
        "step",
        "test example 1: its steps do not increase: 2 comes after 2",
    ),
    "steps cut short": Case(
        "few",
        RUN,
        column("step", lambda values: [[0, 1]] * 5),
        "step",
        "test example 0 and 4 more: its steps end at 1, but the run has 2 updates",
    ),
    "a step not measured": Case(
        "few", RUN, column("step", at(2, [0, 2])), "step", "test example 2: it has 2 steps, but the settings give 3"
    ),
    "steps null": Case("few", RUN, column("step", at(4, None)), "step", "test example 4: there are no steps"),
    "loss not a number": Case(
        "few",
        RUN,
        column("loss", inside(3, 1, float("nan"))),
        "loss",
        "test example 3, step 1: nan is not a finite number",
    ),
    "loss infinite": Case(
        "few",
        RUN,
        column("loss", lambda values: [values[0], *[[1.0, float("inf"), 1.0]] * 4]),
        "loss",
        "test example 1, step 1: inf is not a finite number (and 3 more)",
    ),
    "loss with a hole": Case(
        "few",
        RUN,
        column("loss", inside(0, 2, None)),
        "loss",
        "test example 0, step 2: nan is not a finite number",
    ),
    "loss below 0": Case(
        "few", RUN, column("loss", inside(0, 2, -0.5)), "loss", "test example 0, step 2: -0.5 is not 0 or more"
    ),
    "loss of too few steps": Case(
        "few", RUN, column("loss", at(1, [1.0, 1.0])), "loss", "test example 1: it has 2 values for 3 steps"
    ),
    "loss null": Case("few", RUN, column("loss", at(1, None)), "loss", "test example 1: there are no values"),
    "half right": Case(
        "few", RUN, column("accuracy", inside(2, 0, 0.5)), "accuracy", "test example 2, step 0: 0.5 is not 0 or 1"
    ),
    "bleu above 100": Case(
        "few", TEXTS, column("bleu", inside(2, 1, 100.5)), "bleu", "test example 2, step 1: 100.5 is not 0 to 100"
    ),
    "rougeL in percent": Case(
        "few", TEXTS, column("rougeL", inside(4, 1, 42.0)), "rougeL", "test example 4, step 1: 42 is not 0 to 1"
    ),
    "texts at other steps": Case(
        "few",
        TEXTS,
        column("generation_step", at(0, [0, 2, 3])),
        "generation_step",
        "test example 0: its steps end at 3, but the run has 2 updates",
    ),
    "bleu of a label": Case(
        "gradients",
        MIXED,
        column("bleu", at(0, [0.0] * 4)),
        "bleu",
        "test example 0: there are values, but it does not have this metric",
    ),
    "accuracy of a label lost": Case(
        "gradients", MIXED, column("accuracy", at(1, None)), "accuracy", "test example 1: there are no values"
    ),
    "task of another example": Case(
        "gradients", MIXED, column("task", at(1, "rte")), "task", "test example 1: 'rte', but its id says 'sst2'"
    ),
    "grad_dot infinite": Case(
        "gradients",
        MIXED,
        column("grad_dot", inside(2, 0, float("-inf"))),
        "grad_dot",
        "test example 2, step 1: -inf is not a finite number",
    ),
    "grad_dot lost": Case(
        "gradients",
        MIXED,
        column("grad_dot", lambda values: [None] * 15),
        "grad_dot",
        "test example 0 and 14 more: there are no values",
    ),
    "grad_dot where none is recorded": Case(
        "gradients",
        "data/rte_tiny/test_unseen-u0000.parquet",
        column("update_dot", at(1, [0.0, 0.0])),
        "update_dot",
        "test example 1: has values, but by the settings this run must have none",
    ),
    # Rows of runs
    "row truncated": Case("few", ROW, truncate, "", "cannot be read as Parquet (Parquet magic bytes not found"),
    "two rows": Case(
        "few", ROW, rows(lambda table: pa.concat_tables([table, table])), "", "it has 2 rows; a run has one"
    ),
    "seed": Case("few", ROW, column("seed", at(0, 7)), "seed", "7, but the manifest of rte_tiny says 0"),
    "peak rate": Case(
        "few",
        ROW,
        column("peak_learning_rate", at(0, 0.1)),
        "peak_learning_rate",
        "0.1, but the manifest of rte_tiny says 0.001",
    ),
    "run": Case("few", ROW, column("run", at(0, "0005")), "run", "'0005', but its file's name says '0004'"),
    "no base model": Case("few", ROW, column("base_model", at(0, None)), "base_model", "it is empty"),
    "versions": Case("few", ROW, column("versions", at(0, "[]")), "versions", "not a JSON object"),
    "too few batches": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [values[0][:1]]),
        "curriculum",
        "it has 1 batches, but the settings give 2",
    ),
    "batch too small": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [[values[0][0], values[0][1][:3]]]),
        "curriculum",
        "batch 1 has 3 ids, batch_size is 4",
    ),
    "id beyond the pool": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [[[99, *values[0][0][1:]], values[0][1]]]),
        "curriculum",
        "batch 0 has id 99, the pool are 0 to 11",
    ),
    "pool id in an unseen run": Case(
        "gradients",
        "data/rte_tiny_runs/test_unseen-u0000.parquet",
        column("curriculum", lambda values: [[[3, *values[0][0][1:]], values[0][1]]]),
        "curriculum",
        "batch 0 has id 3, the pool rows kept for unseen runs are 12 to 23",
    ),
    "batches twice": Case(
        "few",
        ROW,
        column("curriculum", lambda values: [[[4, 6, 3, 11], [4, 6, 3, 11]]]),
        "curriculum",
        "3, 4, 6 and 1 more occur more than once in epoch 0",
    ),
    "batches in another order": Case(
        "few",
        ROW,
        column("curriculum", same_batches_swapped),
        "curriculum",
        "batch 0 is not the one that seed 0 draws for run 0004",
    ),
    "no curriculum": Case("few", ROW, column("curriculum", at(0, None)), "curriculum", "there is none"),
    "rates": Case(
        "few",
        ROW,
        column("learning_rate", inside(0, 1, 1e-3)),
        "learning_rate",
        "the rate of update 2 is 0.001, but linear decay gives 0.0005",
    ),
    "too few rates": Case(
        "few", ROW, column("learning_rate", at(0, [1e-3])), "learning_rate", "it has 1 rates for 2 updates"
    ),
    # Gradients
    "products lost": Case(
        "gradients",
        PRODUCTS,
        delete,
        "",
        "with gradients = 'test', run 0004 must have products, but they are missing",
        None,
        "flan_tiny_gradients",
    ),
    "products of a step lost": Case(
        "gradients",
        PRODUCTS,
        rows(lambda table: table.slice(24)),
        "",
        "it has 72 rows, not 4 steps (0, 1, 2, 3) x 24 pool examples",
    ),
    "products of another example": Case(
        "gradients",
        PRODUCTS,
        column("id", at(1, 0)),
        "step, id",
        "row 1: step 0, id 0, but with 4 steps (0, 1, 2, 3) x 24 pool examples it must be step 0, id 1",
    ),
    "product not a number": Case(
        "gradients",
        PRODUCTS,
        column("products", inside(30, 7, float("nan"))),
        "products",
        "row 30, place 7: nan is not a finite number",
    ),
    "a product too few": Case(
        "gradients",
        PRODUCTS,
        column("products", at(3, [1.0] * 14)),
        "products",
        "row 3: it must have 15 numbers (test examples)",
    ),
    "products of the test set": Case(
        "gradients", PRODUCTS, column("part", at(3, "test")), "part", "row 3: 'test', not 'pool'"
    ),
    "products nobody asked for": Case(
        "gradients",
        PRODUCTS,
        lambda path: shutil.copy(path, path.with_name("train-0001.parquet")),
        "",
        "with gradients = 'test', run 0001 has no products",
        "data/flan_tiny_gradients/train-0001.parquet",
        "flan_tiny_gradients",
    ),
    "vectors truncated": Case(
        "gradients", VECTORS, truncate, "", "cannot be read as Parquet (Parquet magic bytes not found"
    ),
    "vector lost": Case("gradients", VECTORS, rows(lambda table: table.slice(1)), "id of part pool", "0 missing"),
    "unseen vectors lost": Case(
        "gradients",
        VECTORS,
        rows(lambda table: pa.concat_tables([table.slice(0, 13), table.slice(24)])),
        "id of part pool",
        "13, 14, 15 and 8 more missing",
    ),
    "vector too wide": Case(
        "gradients",
        VECTORS,
        column("vector", at(2, [0.0] * 17)),
        "vector",
        "row 2: it must have 16 numbers (coordinates)",
    ),
    "vector infinite": Case(
        "gradients",
        VECTORS,
        column("vector", inside(4, 4, float("inf"))),
        "vector",
        "row 4, place 4: inf is not a finite number",
    ),
    "vectors of another projection": Case(
        "gradients",
        VECTORS,
        column("projection_seed", lambda values: [1] * len(values)),
        "projection_seed",
        "row 0 and 28 rows more: 1, not 0",
    ),
}

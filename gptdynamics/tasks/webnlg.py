"""WebNLG: say a list of triples in English."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gptdynamics.errors import DataError
from gptdynamics.tasks.task import HubSource, Row, Task, column

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def plain_triple(triple: str) -> str:
    """`Alba_Iulia | isPartOf | Alba_County` as words: `Alba Iulia | is part of | Alba County`."""
    parts = [part.strip().replace("_", " ").strip('"') for part in triple.split("|", 2)]
    if len(parts) < 3:
        raise DataError(f"triple {triple!r} must be written as `subject | relation | value`")
    subject, relation, value = parts
    return f"{subject} | {_CAMEL.sub(' ', relation).lower()} | {value}"


class WebNLG(Task):
    """Text from triples (WebNLG challenge, English)."""

    name = "webnlg"
    text_tokenizer = "13a"
    fields = {"triples": list, "references": list}
    plain = "Facts: {facts}\nText:"
    instructions = (
        "Turn these facts into plain English.\nFacts: {facts}\nEnglish:",
        "{facts}\n\nEach fact above is a subject, a relation and a value. Say all of it in good sentences:",
        "Write a short text from which a reader learns exactly this: {facts}\nText:",
        "Data: {facts}\nWhat would an encyclopedia say that knows only these data?\nIt says:",
        "Describe in words what the triples say.\nTriples: {facts}\nDescription:",
    )
    # The repository's main branch holds a loading script, which datasets >= 4 refuses; the Hub's own conversion is
    # Parquet. The globs leave out its challenge sets, whose folders are named after splits, too.
    hub = HubSource(
        "GEM/web_nlg",
        None,
        {"train": "train", "eval": "validation"},
        "CC BY-NC-SA 4.0 (dataset card)",
        revision="refs/convert/parquet",
        files={"train": "en/train/*.parquet", "eval": "en/validation/*.parquet"},
    )

    def slots(self, row: Row) -> Mapping[str, str]:
        return {"facts": "; ".join(map(plain_triple, row["triples"]))}

    def target(self, row: Row) -> str:
        return f" {row['references'][0]}"

    def references(self, row: Row) -> Sequence[str]:
        return list(row["references"])

    def adapt(self, row: Row) -> Row:
        # Training rows have one text each, and no references.
        return {
            "triples": column(row, "input"),
            "references": column(row, "references") or [column(row, "target")],
        }

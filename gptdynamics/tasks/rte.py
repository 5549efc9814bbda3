"""RTE: does the premise entail the hypothesis?"""

from gptdynamics.tasks.task import HubSource, Row, Task

ANSWERS = {"entailment": " yes", "not_entailment": " no"}


class RTE(Task):
    """Recognising textual entailment (GLUE)."""

    name = "rte"
    fields = {"premise": str, "hypothesis": str, "label": str}
    labels = (" yes", " no")
    hub = HubSource("nyu-mll/glue", "rte", {"train": "train", "eval": "validation"}, "cc-by-4.0 (GLUE card)")

    def prompt(self, row: Row) -> str:
        return f"{row['premise']}\nQuestion: {row['hypothesis']} Yes or no?\nAnswer:"

    def target(self, row: Row) -> str:
        label = str(row["label"])
        return ANSWERS.get(label, label)

    def adapt(self, row: Row) -> Row:
        return {
            "premise": row["sentence1"],
            "hypothesis": row["sentence2"],
            "label": {0: "entailment", 1: "not_entailment"}.get(row["label"], str(row["label"])),
        }

"""RTE: does the premise entail the hypothesis?"""

from gptdynamics.tasks.task import HubSource, Row, Task, class_name, column

ANSWERS = {"entailment": " yes", "not_entailment": " no"}


class RTE(Task):
    """Recognising textual entailment (GLUE)."""

    name = "rte"
    fields = {"premise": str, "hypothesis": str, "label": str}
    plain = "{premise}\nQuestion: {hypothesis} Yes or no?\nAnswer:"
    instructions = (
        "{premise}\n\nGoing only by the text above, must this be true: {hypothesis}\nOptions: yes, no\nAnswer:",
        "Read the passage and decide whether the claim follows from it.\nPassage: {premise}\nClaim: {hypothesis}\n"
        "Say yes or no:",
        "Suppose we know this: {premise}\nCan we be sure that {hypothesis}\nReply with yes or no.\nReply:",
        "Claim: {hypothesis}\nEvidence: {premise}\nIs the evidence enough to accept the claim, yes or no?",
        "A reader was told: {premise}\nLater someone asked whether this is right: {hypothesis}\n"
        "What should the reader say, yes or no?",
        "Here is a statement to check against a text.\nText: {premise}\nStatement: {hypothesis}\nSupported (yes/no):",
    )
    labels = (" yes", " no")
    hub = HubSource(
        "nyu-mll/glue",
        "rte",
        {"train": "train", "eval": "validation"},
        "cc-by-4.0 (GLUE card)",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    )

    def target(self, row: Row) -> str:
        label = str(row["label"])
        return ANSWERS.get(label, label)

    def adapt(self, row: Row) -> Row:
        return {
            "premise": column(row, "sentence1"),
            "hypothesis": column(row, "sentence2"),
            "label": class_name(column(row, "label"), ("entailment", "not_entailment")),
        }

"""BoolQ: a yes/no question about a passage."""

from collections.abc import Mapping

from gptdynamics.tasks.task import HubSource, Row, Task, column

ANSWERS = {"true": " yes", "false": " no"}


class BoolQ(Task):
    """Yes/no questions about passages of Wikipedia.

    The instruction comes after the passage: an input that is too long is cut from the left.
    """

    name = "boolq"
    fields = {"question": str, "passage": str, "label": str}
    plain = "{passage}\nQuestion: {question}?\nAnswer:"
    instructions = (
        "{passage}\n\nUse the passage to settle a question: {question}?\nYes or no:",
        "Passage: {passage}\nQ: {question}?\nA (yes or no):",
        "{passage}\nSomeone who has just read this is asked: {question}?\nTheir answer, yes or no, is",
        "Text: {passage}\nPick the option that is right.\nQuestion: {question}?\nOptions: no, yes\nPick:",
        "From an encyclopedia: {passage}\nAccording to it, {question}?\nReply with one word, yes or no:",
        "{passage}\nTrue or not? Answer yes if the text says so and no otherwise.\n{question}?\nAnswer:",
    )
    labels = (" yes", " no")
    hub = HubSource(
        "google/boolq",
        None,
        {"train": "train", "eval": "validation"},
        "CC BY-SA 3.0",
        revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
    )

    def slots(self, row: Row) -> Mapping[str, str]:
        return {"passage": row["passage"], "question": row["question"].rstrip("? ")}

    def target(self, row: Row) -> str:
        label = str(row["label"])
        return ANSWERS.get(label, label)

    def adapt(self, row: Row) -> Row:
        return {
            "question": column(row, "question"),
            "passage": column(row, "passage"),
            "label": str(column(row, "answer")).lower(),
        }

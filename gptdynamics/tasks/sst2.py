"""SST-2: is a phrase of a film review positive or negative?"""

from gptdynamics.tasks.task import HubSource, Row, Task, class_name, column


class SST2(Task):
    """Sentiment of phrases from film reviews (GLUE)."""

    name = "sst2"
    fields = {"sentence": str, "label": str}
    plain = "Review: {sentence}\nSentiment:"
    instructions = (
        "Is the mood of this film review positive or negative?\n{sentence}\nMood:",
        "{sentence}\nDid whoever wrote this like the film? Say positive if so, negative if not:",
        "Label the text with its sentiment.\nText: {sentence}\nChoices: negative, positive\nLabel:",
        "A critic writes: {sentence}\nThe verdict of the critic is",
        "Sort short reviews into two piles, positive and negative.\nReview: {sentence}\nPile:",
        "What feeling do these words give about a film, positive or negative?\nWords: {sentence}\nFeeling:",
    )
    labels = (" positive", " negative")
    hub = HubSource(
        "nyu-mll/glue",
        "sst2",
        {"train": "train", "eval": "validation"},
        "unknown (card)",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    )

    def target(self, row: Row) -> str:
        return f" {row['label']}"

    def adapt(self, row: Row) -> Row:
        return {
            # The Hub's sentences end in a space.
            "sentence": column(row, "sentence").strip(),
            "label": class_name(column(row, "label"), ("negative", "positive")),
        }

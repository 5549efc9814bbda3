"""CNN/DailyMail: highlights of a news article."""

from collections.abc import Sequence

from gptdynamics.tasks.task import HubSource, Row, Task, column


def _one_line(highlights: str) -> str:
    return " ".join(highlights.split())


class CNNDailyMail(Task):
    """Summaries of news articles (CNN/DailyMail 3.0.0).

    The instruction comes after the article: an input that is too long is cut from the left.
    """

    name = "cnn_dm"
    text_tokenizer = "13a"
    fields = {"article": str, "highlights": str}
    plain = "{article}\nSummary:"
    instructions = (
        "{article}\n\nTell a friend in a few sentences what this news is about:",
        "Article: {article}\nWrite the highlights of the article.\nHighlights:",
        "{article}\nThe most important points of the report above are these:",
        "News: {article}\nWhat happened? Keep it short.\nIn short:",
        "{article}\n\nBoil this story down for somebody with half a minute to read it.\nThe story:",
    )
    hub = HubSource(
        "abisee/cnn_dailymail",
        "3.0.0",
        {"train": "train", "eval": "validation"},
        "Apache-2.0 (card)",
        revision="96df5e686bee6baa90b8bee7c28b81fa3fa6223d",
    )

    def target(self, row: Row) -> str:
        return f" {_one_line(row['highlights'])}"

    def references(self, row: Row) -> Sequence[str]:
        return [_one_line(row["highlights"])]

    def adapt(self, row: Row) -> Row:
        return {"article": column(row, "article"), "highlights": column(row, "highlights")}

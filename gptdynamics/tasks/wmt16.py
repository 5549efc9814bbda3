"""WMT16: German to English."""

from collections.abc import Sequence

from gptdynamics.tasks.task import HubSource, Row, Task, column


class WMT16(Task):
    """Translation of news from German to English (WMT 2016)."""

    name = "wmt16"
    text_tokenizer = "13a"
    fields = {"de": str, "en": str}
    plain = "German: {de}\nEnglish:"
    instructions = (
        "Put this German sentence into English.\n{de}\nIn English:",
        "{de}\n\nHow would an English newspaper say that?\nIt would say:",
        "You are given German. Give the same in English.\nGerman: {de}\nEnglish:",
        "What does the following mean in English? {de}\nMeaning:",
        "Deutsch: {de}\nTranslate the line above for a reader who knows only English.\nTranslation:",
    )
    hub = HubSource(
        "wmt/wmt16",
        "de-en",
        {"train": "train", "eval": "test"},
        "unknown (card)",
        revision="41d8a4013aa1489f28fea60ec0932af246086482",
    )

    def target(self, row: Row) -> str:
        return f" {row['en']}"

    def references(self, row: Row) -> Sequence[str]:
        return [row["en"]]

    def adapt(self, row: Row) -> Row:
        return {"de": column(row, "translation", "de"), "en": column(row, "translation", "en")}

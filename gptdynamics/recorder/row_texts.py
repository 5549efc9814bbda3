"""Prompt and target of a row, in any of the usual forms of fine-tuning data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gptdynamics.errors import DataError, SettingsError

# What a target is called in prompt-completion datasets.
TARGETS = ("target", "completion")
CONVERSATIONS = ("messages", "conversations")
FORMS = (
    "rows need prompt and target (or completion), both texts or both lists of messages; messages; or text. "
    "Rename the columns"
)
# Only text is measured.
_NOT_MEASURED = ("image", "images", "video", "videos", "audio", "tools")
_ASSISTANTS = ("assistant", "gpt", "model")

Messages = list[dict[str, Any]]


class RowTexts(NamedTuple):
    """The texts of a row.

    Attributes:
        prompt: empty where the row has nothing but a text.
        target: that a model would generate.
        whole: whether it is a text without a prompt of its own.
    """

    prompt: str
    target: str
    whole: bool = False


# Makes a text of messages, with the beginning of an answer if asked for, by options of the chat template.
Chat = Callable[[Messages, bool, Mapping[str, Any]], str]


def has_messages(row: Any) -> bool:
    """Whether a row is conversational, so that its texts depend on the chat template."""
    if not isinstance(row, Mapping):
        return False
    return any(
        isinstance(row.get(name), Sequence) and not isinstance(row[name], str) for name in ("prompt", *TARGETS)
    ) or ("prompt" not in row and any(row.get(name) is not None for name in CONVERSATIONS))


def plain_chat(messages: Messages, add_generation_prompt: bool, options: Mapping[str, Any]) -> str:
    """Roles and contents, a line each: a placeholder until the tokenizer's chat template is known."""
    return "".join(f"{each['role']}: {each['content']}\n" for each in messages) + "assistant: " * add_generation_prompt


class TemplateChat:
    """Applies a tokenizer's chat template, or another `template` in its place."""

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template

    def __call__(self, messages: Messages, add_generation_prompt: bool, options: Mapping[str, Any]) -> str:
        """The text of messages.

        Raises:
            SettingsError: there is no template, or it does not take these messages.
        """
        if self.template is None and not getattr(self.tokenizer, "chat_template", None):
            raise SettingsError(
                "rows with messages need a chat template, and the tokenizer has none: set its chat_template"
            )
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **options,
                )
            )
        except Exception as error:
            raise SettingsError(f"the chat template does not take messages of the rows ({error})") from error


def row_texts(row: Mapping[str, Any], where: str, chat: Chat) -> RowTexts:
    """Prompt and target of a row.

    Of messages, the target is the content of the last one, and the prompt is all that the chat template puts before it.

    Args:
        row: see `FORMS`.
        where: it stands, for errors.
        chat: applies the chat template.

    Raises:
        DataError: it has none of the forms, or holds more than text.
    """
    if extra := [name for name in _NOT_MEASURED if row.get(name) not in (None, "", [])]:
        raise DataError(f"{where}: it has {extra[0]!r}, and only text is recorded. Leave such rows out")
    target = next((name for name in TARGETS if name in row), TARGETS[0])
    options = row.get("chat_template_kwargs") or {}
    if "prompt" not in row:
        if name := next((name for name in CONVERSATIONS if row.get(name) is not None), None):
            messages = _messages(row[name], name, where)
            return _conversation(messages[:-1], messages[-1:], where, chat, options)
        if isinstance(row.get("text"), str) and target not in row:
            return RowTexts("", row["text"], whole=True)
    prompt, answer = row.get("prompt"), row.get(target)
    if prompt is not None and answer is not None and not isinstance(prompt, str) and not isinstance(answer, str):
        asked = _messages(prompt, "prompt", where)
        return _conversation(asked, _messages(answer, target, where), where, chat, options)
    for name, value in (("prompt", prompt), (target, answer)):
        if not isinstance(value, str):
            raise DataError(f"{where}: it has no text {name!r}; {FORMS}")
    return RowTexts(str(prompt), str(answer))


def _messages(value: Any, name: str, where: str) -> Messages:
    if not isinstance(value, Sequence) or not value or not all(isinstance(each, Mapping) for each in value):
        raise DataError(f"{where}: {name!r} is no list of messages; {FORMS}")
    messages = []
    for number, each in enumerate(value):
        message = {key: part for key, part in each.items() if part is not None}
        # As in ShareGPT, which TRL reads, too.
        for ours, theirs in (("role", "from"), ("content", "value")):
            if theirs in message and ours not in message:
                message[ours] = message.pop(theirs)
        content = message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            kinds = [part.get("type") if isinstance(part, Mapping) else type(part).__name__ for part in content]
            if other := [kind for kind in kinds if kind != "text"]:
                raise DataError(f"{where}: {name}[{number}] has {other[0]!r}, and only text is recorded")
            content = message["content"] = "".join(str(part.get("text", "")) for part in content)
        if message.get("tool_calls"):
            raise DataError(f"{where}: {name}[{number}] has 'tool_calls', and only text is recorded")
        if not isinstance(message.get("role"), str) or not isinstance(content, str):
            raise DataError(f"{where}: {name}[{number}] has no role and content that are texts")
        messages.append(message)
    return messages


def _conversation(asked: Messages, answered: Messages, where: str, chat: Chat, options: Mapping[str, Any]) -> RowTexts:
    if not asked or answered[-1]["role"] not in _ASSISTANTS:
        raise DataError(
            f"{where}: its last message is not an assistant's answer to another one, so there is nothing to measure. "
            "Leave out what follows the last answer"
        )
    # Many templates strip the content.
    content = answered[-1]["content"].strip()
    whole = chat([*asked, *answered], False, options)
    begun = chat(asked, True, options)
    continues = whole.startswith(begun) and len(answered) == 1
    place = whole.find(content, len(begun)) if continues else whole.rfind(content)
    if not content or place < 0:
        raise DataError(f"{where}: the chat template does not show what its last message says. Leave the row out")
    if continues and whole.startswith(answered[-1]["content"], len(begun)):
        return RowTexts(begun, answered[-1]["content"])
    return RowTexts(whole[:place], content)

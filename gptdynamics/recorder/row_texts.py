"""Prompt and target of a row, in any of the common forms of fine-tuning data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gptdynamics.errors import DataError, SettingsError

# Names of the target in prompt-completion datasets.
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
        prompt: empty if the row has only a text.
        target: the text that a model would generate.
        whole: whether the row has only a text, without a separate prompt.
    """

    prompt: str
    target: str
    whole: bool = False


# Renders messages as a text. Arguments: messages, whether to add the generation prompt, options of the chat template.
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
    return (
        "".join(f"{message['role']}: {message['content']}\n" for message in messages)
        + "assistant: " * add_generation_prompt
    )


class TemplateChat:
    """Applies a tokenizer's chat template, or another `template` in its place."""

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template

    def __call__(self, messages: Messages, add_generation_prompt: bool, options: Mapping[str, Any]) -> str:
        """The text of messages.

        Raises:
            SettingsError: there is no template, or it cannot render these messages.
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
            raise SettingsError(f"the chat template cannot render messages of the rows ({error})") from error


def row_texts(row: Mapping[str, Any], where: str, chat: Chat) -> RowTexts:
    """Prompt and target of a row.

    For messages, the target is the content of the last one, and the prompt is the text that the chat template has
    before it.

    Args:
        row: see `FORMS`.
        where: its place, for errors.
        chat: applies the chat template.

    Raises:
        DataError: it has none of the forms, or holds more than text.
    """
    if extra := [name for name in _NOT_MEASURED if row.get(name) not in (None, "", [])]:
        raise DataError(f"{where}: it has {extra[0]!r}, but only text is recorded. Leave such rows out")
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
        prompt_messages = _messages(prompt, "prompt", where)
        return _conversation(prompt_messages, _messages(answer, target, where), where, chat, options)
    for name, value in (("prompt", prompt), (target, answer)):
        if not isinstance(value, str):
            raise DataError(f"{where}: its {name!r} is missing or not a text; {FORMS}")
    return RowTexts(str(prompt), str(answer))


def _messages(value: Any, name: str, where: str) -> Messages:
    if not isinstance(value, Sequence) or not value or not all(isinstance(raw, Mapping) for raw in value):
        raise DataError(f"{where}: {name!r} is not a list of messages; {FORMS}")
    messages = []
    for number, raw in enumerate(value):
        message = {key: part for key, part in raw.items() if part is not None}
        # The names in ShareGPT's form, which TRL also reads.
        for key, alias in (("role", "from"), ("content", "value")):
            if alias in message and key not in message:
                message[key] = message.pop(alias)
        content = message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            kinds = [part.get("type") if isinstance(part, Mapping) else type(part).__name__ for part in content]
            if other_kinds := [kind for kind in kinds if kind != "text"]:
                raise DataError(f"{where}: {name}[{number}] has {other_kinds[0]!r}, but only text is recorded")
            content = message["content"] = "".join(str(part.get("text", "")) for part in content)
        if message.get("tool_calls"):
            raise DataError(f"{where}: {name}[{number}] has 'tool_calls', but only text is recorded")
        if not isinstance(message.get("role"), str) or not isinstance(content, str):
            raise DataError(f"{where}: role and content of {name}[{number}] must be texts")
        messages.append(message)
    return messages


def _conversation(earlier: Messages, answer: Messages, where: str, chat: Chat, options: Mapping[str, Any]) -> RowTexts:
    if not earlier or answer[-1]["role"] not in _ASSISTANTS:
        raise DataError(
            f"{where}: its last message is not an assistant's answer to an earlier message, so there is nothing to "
            "measure. Leave out the messages after the last answer"
        )
    # Many templates strip the content.
    content = answer[-1]["content"].strip()
    text = chat([*earlier, *answer], False, options)
    prompt = chat(earlier, True, options)
    continues = text.startswith(prompt) and len(answer) == 1
    position = text.find(content, len(prompt)) if continues else text.rfind(content)
    if not content or position < 0:
        raise DataError(f"{where}: the chat template leaves out the content of its last message. Leave the row out")
    if continues and text.startswith(answer[-1]["content"], len(prompt)):
        return RowTexts(prompt, answer[-1]["content"])
    return RowTexts(text[:position], content)

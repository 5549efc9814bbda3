"""The recorder measures exactly the ids and labels that its trainer trains on: its losses are the trainer's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
)

from gptdynamics.dataset import read_dynamics
from gptdynamics.dataset.verify import verify
from gptdynamics.errors import DataError, GPTDynamicsError
from gptdynamics.models.nano import MODEL_FOLDER
from gptdynamics.recorder import DynamicsRecorder, RecordSettings, StepRecorder

pytestmark = pytest.mark.filterwarnings(
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning",
)

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + TEMPLATE
IDS = range(14)
POOL = 10


def tokenizer(template: str = TEMPLATE, bos: bool = False) -> Any:
    made = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<s>"]})
    made.eos_token, made.pad_token, made.bos_token = "<|im_end|>", "<|endoftext|>", "<s>"
    made.chat_template = template
    if bos:
        from tokenizers.processors import TemplateProcessing

        made.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", made.bos_token_id)]
        )
    return made


def model(words: Any) -> Qwen2ForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
        return Qwen2ForCausalLM(config)


def user(number: int) -> dict[str, str]:
    return {"role": "user", "content": f"Is {number} an even number?"}


def answer(number: int) -> dict[str, str]:
    return {"role": "assistant", "content": ("yes, it is", "no, it is odd.")[number % 2]}


def several(number: int) -> list[dict[str, str]]:
    more = [user(number + 1), answer(number + 1)] if number % 3 else []
    return [{"role": "system", "content": "Answer."}, user(number), answer(number), *more]


ROWS: dict[str, list[dict[str, Any]]] = {
    "leading": [{"prompt": f"Is {at} even?\nAnswer:", "completion": (" yes", " no, odd.")[at % 2]} for at in IDS],
    "trailing": [{"prompt": f"Is {at} even?\nAnswer: ", "completion": ("yes", "no, odd.")[at % 2]} for at in IDS],
    "within": [{"prompt": f"Is {at} eve", "completion": ("n? yes", "n? no")[at % 2]} for at in IDS],
    "conversational": [{"prompt": [user(at)], "completion": [answer(at)]} for at in IDS],
    "messages": [{"messages": [user(at), answer(at)]} for at in IDS],
    "several turns": [{"messages": several(at)} for at in IDS],
    "text": [{"text": f"{user(at)['content']} {answer(at)['content']}"} for at in IDS],
    "ShareGPT": [
        {
            "conversations": [
                {"from": "user", "value": user_text},
                {"from": "assistant", "value": ("yes, it is", "no, it is odd.")[at % 2]},
            ]
        }
        for at, user_text in ((at, f"Is {at} an even number?") for at in IDS)
    ],
    "several parts": [
        {"prompt": [{"role": "system", "content": "Answer."}, user(at)], "completion": [answer(at), *several(at)[1:3]]}
        for at in IDS
    ],
    "lengths": [{"prompt": "Count: " + "one two " * (1 + at), "completion": f" and so on {at}"} for at in IDS],
}
ROWS = {kind: [{"id": at, **row} for at, row in enumerate(rows)] for kind, rows in ROWS.items()}


def check(trainer: Trainer, rows: list[dict[str, Any]], test: Any, out: Path, given: Any = None) -> dict[str, Any]:
    """Train and record; every test example's loss is that of the trainer's own evaluation. What the manifest says.

    Args:
        trainer: on the first rows.
        rows: what the recorder is given, pool and test.
        test: the rows that are evaluated, one by one, in the trainer's form.
        out: the dataset folder.
        given: the test rows that the recorder is given; None: those of `rows`.
    """

    def losses() -> list[float]:
        return [trainer.evaluate(test.select([place]))["eval_loss"] for place in range(len(test))]

    how = RecordSettings(generate_every=100, base_model="own")
    recorder = DynamicsRecorder(out, "even_own", rows[:POOL], given or rows[POOL:], settings=how)
    recorder.attach(trainer)
    before = losses()
    trainer.train()
    after = losses()
    assert trainer.state.global_step
    read = read_dynamics(out, "even_own", "loss")
    np.testing.assert_allclose(read.values[0, 0], before, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(read.values[0, -1], after, atol=1e-5, rtol=1e-5)
    assert max(abs(one - other) for one, other in zip(before, after, strict=True)) > 1e-3
    assert verify(out).faults == []
    said = json.loads((out / "manifests" / "even_own.json").read_text())["recording"]["tokenization"]
    return said if isinstance(said, dict) else {"name": said}


def sft(rows: list[dict[str, Any]], out: Path, words: Any, evaluation: Any = None, **arguments: Any) -> Any:
    trl = pytest.importorskip("trl")
    formatting, streamed = arguments.pop("formatting_func", None), arguments.pop("streamed", False)
    given = {
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 1,
        "learning_rate": 3e-3,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "num_train_epochs": 1,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    return trl.SFTTrainer(
        model(words),
        trl.SFTConfig(str(out), **(given | arguments)),
        train_dataset=Dataset.from_list(rows[:POOL]).to_iterable_dataset()
        if streamed
        else Dataset.from_list(rows[:POOL]),
        eval_dataset=evaluation,
        processing_class=words,
        formatting_func=formatting,
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "template", "bos"),
    [
        ("leading", {}, TEMPLATE, False),
        ("trailing", {}, TEMPLATE, False),
        ("within", {}, TEMPLATE, False),
        ("leading", {}, TEMPLATE, True),
        ("trailing", {"completion_only_loss": False}, TEMPLATE, True),
        ("conversational", {}, TEMPLATE, False),
        ("conversational", {}, WITH_BOS, False),
        ("conversational", {"assistant_only_loss": True}, MARKED, False),
        ("messages", {}, TEMPLATE, False),
        ("messages", {"assistant_only_loss": True}, MARKED, False),
        ("several turns", {}, TEMPLATE, False),
        ("several turns", {"assistant_only_loss": True}, MARKED, False),
        ("ShareGPT", {}, TEMPLATE, False),
        ("several parts", {}, TEMPLATE, False),
        ("several parts", {"assistant_only_loss": True}, MARKED, False),
        ("text", {}, TEMPLATE, False),
        ("text", {}, TEMPLATE, True),
        ("conversational", {"padding_free": True, "max_length": None}, TEMPLATE, False),
        ("leading", {"padding_free": True, "max_length": None}, TEMPLATE, False),
        ("lengths", {"max_length": 26, "truncation_mode": "keep_end"}, TEMPLATE, False),
        ("lengths", {"max_length": 60, "truncation_mode": "keep_start"}, TEMPLATE, True),
        ("leading", {"eos_token": "<|endoftext|>"}, TEMPLATE, False),
        ("conversational", {"shuffle_dataset": True}, TEMPLATE, False),
    ],
    ids=str,
)
def test_losses_are_those_of_sft_trainer(
    kind: str, arguments: dict[str, Any], template: str, bos: bool, tmp_path: Path
) -> None:
    rows = ROWS[kind]
    trainer = sft(rows, tmp_path / "t", tokenizer(template, bos), **arguments)
    test = Dataset.from_list(rows[POOL:])
    check(trainer, rows, test, tmp_path / "d")


def joined(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    ids = words(row["prompt"] + row["completion"])["input_ids"] + [words.eos_token_id]
    start = len(words(row["prompt"].rstrip())["input_ids"])
    return {"input_ids": ids, "labels": [-100] * start + ids[start:]}


def separate(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    prompt, target = (words(row[name], add_special_tokens=False)["input_ids"] for name in ("prompt", "completion"))
    return {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target}


def separate_with_start(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    prompt = words(row["prompt"])["input_ids"]
    target = words(" " + row["completion"].strip() + "\n", add_special_tokens=False)["input_ids"] + [words.eos_token_id]
    return {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target}


def template(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    before = f"### Question\n{row['prompt'].strip()}\n### Answer\n"
    ids = words(before + row["completion"].strip() + "\n\n")["input_ids"]
    return {"input_ids": ids, "labels": ids.copy()}


def question(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    """What stands around the texts has words of the answers."""
    before = f"Say yes or no, odd. Is 1 even?\n{row['prompt']} (yes or no, odd.) "
    ids = words(before + row["completion"].strip() + ".")["input_ids"] + [words.eos_token_id]
    start = len(words(before)["input_ids"])
    return {"input_ids": ids, "labels": [-100] * start + ids[start:]}


def ids_only(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": words(row["prompt"] + row["completion"] + words.pad_token)["input_ids"]}


def cut_right(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    ids = words(row["prompt"] + row["completion"] + words.eos_token, truncation=True, max_length=48)["input_ids"]
    return {"input_ids": ids, "labels": ids.copy()}


def padded(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    made = separate(words, row)
    more = 64 - len(made["input_ids"])
    return {
        "input_ids": made["input_ids"] + [words.pad_token_id] * more,
        "attention_mask": [1] * len(made["input_ids"]) + [0] * more,
        "labels": made["labels"] + [-100] * more,
    }


def plain(encode: Any, rows: list[dict[str, Any]], out: Path, words: Any, collator: Any = None) -> tuple[Any, Dataset]:
    """A Trainer on encoded rows, and the encoded test rows."""
    encoded = Dataset.from_list(rows).map(lambda row: encode(words, row))
    arguments = TrainingArguments(
        str(out),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=1,
        learning_rate=3e-3,
        num_train_epochs=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model(words),
        arguments,
        train_dataset=encoded.select(range(POOL)),
        data_collator=collator or DataCollatorForSeq2Seq(words),
        processing_class=words,
    )
    return trainer, encoded.select(range(POOL, len(rows)))


@pytest.mark.parametrize(
    ("encode", "kind", "bos", "said"),
    [
        (joined, "leading", False, "joined"),
        (joined, "trailing", False, "joined"),
        (joined, "leading", True, "joined"),
        (separate, "leading", False, ""),
        (separate, "trailing", False, ""),
        (separate, "trailing", True, ""),
        (separate_with_start, "trailing", True, ""),
        (template, "leading", False, ""),
        (template, "trailing", True, ""),
        (cut_right, "lengths", False, ""),
        (question, "leading", False, ""),
        (question, "leading", True, ""),
        (padded, "leading", False, ""),
    ],
)
def test_losses_are_those_of_a_trainer_with_an_encoding_of_its_own(
    encode: Any, kind: str, bos: bool, said: str, tmp_path: Path
) -> None:
    words = tokenizer(bos=bos)
    trainer, test = plain(encode, ROWS[kind], tmp_path / "t", words)
    made = check(trainer, ROWS[kind], test, tmp_path / "d")
    assert made.get("name", "") == said


def test_a_collator_that_makes_labels_is_believed(tmp_path: Path) -> None:
    """That of language modelling scores every token but those that equal the padding."""
    words = tokenizer()
    collator = DataCollatorForLanguageModeling(words, mlm=False)
    trainer, test = plain(ids_only, ROWS["leading"], tmp_path / "t", words, collator)
    said = check(trainer, ROWS["leading"], test, tmp_path / "d")
    assert said["rules"]["even"]["scored"] == "all"
    assert said["rules"]["even"]["ending"] == []


def test_flattened_batches_are_read_row_by_row(tmp_path: Path) -> None:
    words = tokenizer()
    trainer, test = plain(joined, ROWS["leading"], tmp_path / "t", words, DataCollatorWithFlattening())
    check(trainer, ROWS["leading"], test, tmp_path / "d")


@pytest.fixture(scope="module")
def sentence_piece() -> Any:
    """A tokenizer of Llama-2's kind: a mark before every text, and a start of text before every sequence."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [row["prompt"] + row["completion"] for kind in ("leading", "trailing") for row in ROWS[kind]]
    bpe = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe.train_from_iterator(texts * 4, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
    start = [("<s>", bpe.token_to_id("<s>"))]
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=start)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.pad_token = "<unk>"
    return made


@pytest.mark.parametrize("kind", ["leading", "trailing"])
@pytest.mark.parametrize("encode", [joined, separate, template, cut_right, None])
def test_losses_are_those_of_training_with_a_tokenizer_that_marks_texts(
    kind: str, encode: Any, sentence_piece: Any, tmp_path: Path
) -> None:
    rows = ROWS[kind]
    if encode is None:
        trainer, test = sft(rows, tmp_path / "t", sentence_piece), Dataset.from_list(rows[POOL:])
    else:
        trainer, test = plain(encode, rows, tmp_path / "t", sentence_piece)
    check(trainer, rows, test, tmp_path / "d")


def test_accuracy_of_labels_that_end_with_an_end_of_text(tmp_path: Path) -> None:
    """SFTTrainer puts one after every completion; a label is right if it is the likeliest with it."""
    words = tokenizer()
    labels = (" yes", " no, odd.", " perhaps")
    rows = ROWS["leading"]
    trainer = sft(rows, tmp_path / "t", words)
    how = RecordSettings(labels=labels, base_model="own")
    DynamicsRecorder(tmp_path / "d", "even_own", rows[:POOL], rows[POOL:], settings=how).attach(trainer)
    trainer.train()
    read = read_dynamics(tmp_path / "d", "even_own", "accuracy")

    def loss(prompt: str, label: str) -> float:
        ids = torch.tensor([words(prompt + label + words.eos_token)["input_ids"]])
        start = len(words(prompt)["input_ids"])
        targets = torch.where(torch.arange(ids.shape[1]) < start, -100, ids[0])[None]
        with torch.no_grad():
            return float(trainer.model.eval()(input_ids=ids, labels=targets).loss)

    right = []
    for row in rows[POOL:]:
        each = [loss(row["prompt"], label) for label in labels]
        right.append(float(labels[int(np.argmin(each))] == row["completion"]))
    assert read.values[0, -1].tolist() == right
    assert verify(tmp_path / "d").faults == []


def refused(
    trainer: Any, rows: Any, test: Any, out: Path, said: str, error: type[GPTDynamicsError] = DataError
) -> None:
    """Training does not begin, and the folder is left as it was."""
    how = RecordSettings(generate_every=100, base_model="own")
    with pytest.raises(error, match=said):
        recorder = DynamicsRecorder(out, "even_own", rows, test, settings=how)
        recorder.attach(trainer)
        trainer.train()
    assert trainer.state.global_step == 0
    assert not out.exists()


def numbered(words: Any, row: dict[str, Any]) -> dict[str, Any]:
    """An encoding that no rule makes: something of the row's own stands within."""
    ids = words(row["prompt"] + f"({7 * row['id']})" + row["completion"])["input_ids"] + [words.eos_token_id]
    return {"input_ids": ids, "labels": [-100] * 4 + ids[4:]}


def test_tokens_that_texts_do_not_make_are_given_or_refused(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["leading"]
    trainer, test = plain(numbered, rows, tmp_path / "t", words)
    refused(
        trainer,
        rows[:POOL],
        rows[POOL:],
        tmp_path / "d",
        r"cannot be made of prompt and target. Pool example 0 is trained on .*; its texts make .*\. Give the test rows",
    )
    given = [
        {**row, **{name: test[at][name] for name in ("input_ids", "labels")}} for at, row in enumerate(rows[POOL:])
    ]
    said = check(trainer, rows, test, tmp_path / "given", given)
    assert list(said) == ["rows"]
    trainer, test = plain(numbered, rows, tmp_path / "t", words)
    trainer.eval_dataset = test.shuffle(seed=0)
    assert check(trainer, rows, test, tmp_path / "evaluated") == said
    # A second run of the config is measured on the same tokens, or refused.
    trainer, _ = plain(numbered, rows, tmp_path / "t", words)
    given[1] = {**given[1], "labels": [-100] * 5 + given[1]["labels"][5:]}
    how = RecordSettings(generate_every=100, base_model="own")
    DynamicsRecorder(tmp_path / "given", "even_own", rows[:POOL], given, settings=how).attach(trainer)
    with pytest.raises(GPTDynamicsError, match=r"tokenization: .* there, .* now"):
        trainer.train()


def test_masks_of_test_rows_say_what_is_scored(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["leading"]
    trainer, test = plain(numbered, rows, tmp_path / "t", words)
    given = [
        {**row, "input_ids": made["input_ids"], "completion_mask": [int(label != -100) for label in made["labels"]]}
        for row, made in zip(rows[POOL:], test, strict=True)
    ]
    check(trainer, rows, test, tmp_path / "d", given)
    trainer, _ = plain(numbered, rows, tmp_path / "t", words)
    bare = [{name: value for name, value in row.items() if name != "completion_mask"} for row in given]
    refused(trainer, rows[:POOL], bare, tmp_path / "e", "test example 0: it has input_ids without labels")
    refused(
        trainer, rows[:POOL], [given[0], rows[11]], tmp_path / "e", "test example 1: it has no input_ids, and others"
    )


def test_what_no_loss_can_be_measured_of_is_refused(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["leading"]

    def other_labels(words: Any, row: dict[str, Any]) -> dict[str, Any]:
        ids = joined(words, row)["input_ids"]
        return {"input_ids": ids, "labels": [*ids[1:], -100]}

    trainer, _ = plain(other_labels, rows, tmp_path / "t", words)
    refused(trainer, rows[:POOL], rows[POOL:], tmp_path / "d", r"label 1 is \d+, where its input_ids have \d+")
    trainer, _ = plain(
        joined, rows, tmp_path / "t", words, lambda rows: {"input_ids": torch.tensor([rows[0]["input_ids"]])}
    )
    refused(trainer, rows[:POOL], rows[POOL:], tmp_path / "d", "its batches have no 'labels'")

    def two_only(rows: list[Any]) -> Any:
        if len(rows) != 2:
            raise RuntimeError("two")
        return DataCollatorForSeq2Seq(words)(rows)

    trainer, _ = plain(joined, rows, tmp_path / "t", words, two_only)
    refused(
        trainer, rows[:POOL], rows[POOL:], tmp_path / "d", r"makes no batch of this row alone \(RuntimeError: two\)"
    )
    trainer = sft(rows, tmp_path / "t", words, packing=True, max_length=64)
    refused(trainer, rows[:POOL], rows[POOL:], tmp_path / "d", "packing puts several examples.*Set packing=False")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "a.png"}, "pool example 0: it has 'image', and only text is recorded"),
        ({"tools": ["look"]}, "pool example 0: it has 'tools', and only text is recorded"),
        ({"messages": [answer(0), user(0)]}, "last message is not an assistant's answer"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, answer(0)]}, "has 'image', and only text"),
        ({"messages": ["hello"]}, "'messages' is no list of messages"),
        (
            {"messages": None, "instruction": "Is it?", "response": "yes"},
            "it has no text 'prompt'; rows need prompt and",
        ),
        ({"messages": None, "prompt": [user(0)], "chosen": "a", "rejected": "b"}, "it has no text 'prompt'; rows need"),
    ],
)
def test_rows_of_other_forms_are_refused_by_name(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    rows = [{**ROWS["messages"][0], **change}]
    with pytest.raises(DataError, match=said):
        DynamicsRecorder(tmp_path / "d", "even_own", rows, ROWS["messages"][1:2])


def test_a_tokenizer_without_a_chat_template_is_named(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["leading"]
    words.chat_template = None
    trainer, _ = plain(joined, rows, tmp_path / "t", words)
    chats = ROWS["messages"]
    refused(trainer, chats[:POOL], chats[POOL:], tmp_path / "d", "the tokenizer has none", GPTDynamicsError)


@pytest.mark.parametrize("kind", ["templated", "prepared", "formatted", "other texts"])
def test_given_rows_may_have_another_form_than_trained_ones(kind: str, tmp_path: Path) -> None:
    words, chats = tokenizer(), ROWS["messages"]
    arguments: dict[str, Any] = {}
    rows = [
        {
            "id": at,
            "prompt": words.apply_chat_template([user(at)], tokenize=False, add_generation_prompt=True),
            "target": answer(at)["content"],
        }
        for at in IDS
    ]
    trained: list[dict[str, Any]] = chats
    if kind == "prepared":
        trained = [
            {"id": at, "input_ids": (ids := words(row["prompt"] + row["target"])["input_ids"]), "labels": ids}
            for at, row in enumerate(rows)
        ]
        arguments = {"dataset_kwargs": {"skip_prepare_dataset": True}}
    elif kind == "formatted":
        trained = [{"id": at, "question": user(at)["content"], "reply": answer(at)["content"]} for at in IDS]
        rows = [{"id": at, "prompt": user(at)["content"], "target": answer(at)["content"]} for at in IDS]
        arguments = {"formatting_func": lambda row: f"### {row['question']}\n\n{row['reply']}"}
    elif kind == "other texts":
        rows = [{"id": at, "prompt": user(at)["content"], "target": answer(at)["content"]} for at in IDS]
    trainer = sft(trained, tmp_path / "t", words, **arguments)
    check(trainer, rows, Dataset.from_list(trained[POOL:]), tmp_path / "d")


def test_rows_of_a_stream_are_seen_in_the_first_batch(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["trailing"]
    trainer, test = plain(joined, rows, tmp_path / "t", words)
    kept = list(trainer.train_dataset.select_columns(["id", "input_ids", "labels"]))

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        taken = 0

        def __iter__(self) -> Any:
            for row in kept:
                Stream.taken += 1
                yield dict(row)

    trainer.train_dataset = Stream()
    trainer.args.max_steps = 5
    check(trainer, rows, test, tmp_path / "d")
    assert Stream.taken == POOL


def test_a_loop_of_ones_own_is_measured_on_joined_texts_or_on_what_its_rows_say(tmp_path: Path) -> None:
    words, rows = tokenizer(bos=True), ROWS["trailing"]
    own = model(words)

    def recorded(test: Any, out: Path) -> list[float]:
        optimizer = torch.optim.SGD(own.parameters(), lr=0.0)
        how = RecordSettings(generate_every=100, base_model="own")
        with StepRecorder(out, "even_own", rows[:POOL], test, own, words, optimizer, settings=how) as recorder:
            for at in (0, 1):
                with recorder.step([at]):
                    optimizer.step()
        return list(read_dynamics(out, "even_own", "loss").values[0, 0].tolist())

    def losses(encode: Any) -> list[float]:
        found = []
        for row in rows[POOL:]:
            made = encode(words, row)
            ids, labels = (torch.tensor([made[name]]) for name in ("input_ids", "labels"))
            with torch.no_grad():
                found.append(float(own.eval()(input_ids=ids, labels=labels).loss))
        return found

    assert recorded(rows[POOL:], tmp_path / "joined") == pytest.approx(losses(joined), abs=1e-5)
    for encode in (separate, numbered):
        given = [{**row, **encode(words, row)} for row in rows[POOL:]]
        assert recorded(given, tmp_path / encode.__name__) == pytest.approx(losses(encode), abs=1e-5)


def test_configs_recorded_before_there_was_a_rule_keep_theirs(tmp_path: Path) -> None:
    """Their manifests say nothing: prompt and target were tokenised apart, without special tokens."""
    words, rows = tokenizer(), ROWS["leading"]
    path = tmp_path / "d" / "manifests" / "even_own.json"

    def train(encode: Any) -> None:
        trainer, _ = plain(encode, rows, tmp_path / "t", words)
        how = RecordSettings(generate_every=100, base_model="own")
        DynamicsRecorder(tmp_path / "d", "even_own", rows[:POOL], rows[POOL:], settings=how).attach(trainer)
        trainer.train()

    def with_end(words: Any, row: dict[str, Any]) -> dict[str, Any]:
        made = separate(words, row)
        return {name: [*values, words.eos_token_id] for name, values in made.items()}

    train(with_end)
    manifest = json.loads(path.read_text())
    assert manifest["recording"].pop("tokenization") == "joined"
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    assert verify(tmp_path / "d").faults == []
    train(with_end)
    assert read_dynamics(tmp_path / "d", "even_own", "loss").runs == ["0000", "0001"]
    assert verify(tmp_path / "d").faults == []
    with pytest.raises(GPTDynamicsError, match=r"tokenization: 'separate' there, .* now"):
        train(template)


@pytest.mark.parametrize("kind", ["leading", "messages"])
def test_streams_are_prepared_as_they_are_read(kind: str, tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS[kind]
    trainer = sft(rows, tmp_path / "t", words, streamed=True, max_steps=4)
    check(trainer, rows, Dataset.from_list(rows[POOL:]), tmp_path / "d")


def test_two_ways_that_differ_for_a_test_example_are_not_measured_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No pool prompt ends in a space: joined and apart are the same tokens there, but not those of the test example."""
    words, rows = tokenizer(), [*ROWS["leading"][:POOL], *ROWS["trailing"][POOL:]]
    trainer, _ = plain(joined, rows, tmp_path / "t", words)
    how = RecordSettings(generate_every=100, base_model="own")
    DynamicsRecorder(tmp_path / "d", "even_own", rows[:POOL], rows[POOL:], settings=how).attach(trainer)
    trainer.train()
    warned = [each for each in caplog.messages if "more than one way to make tokens" in each]
    assert len(warned) == 1
    assert warned[0].startswith("test example 0: ")
    assert "Give the test rows input_ids and labels" in warned[0]
    caplog.clear()
    # What TRL makes itself leaves no doubt.
    trainer = sft(rows, tmp_path / "t", words)
    check(trainer, rows, Dataset.from_list(rows[POOL:]), tmp_path / "e")
    assert not any("more than one way" in each for each in caplog.messages)

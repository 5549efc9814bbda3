"""The recorder measures exactly the ids and labels that its trainer trains on: its losses are the trainer's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
)

from tests.gptdynamics.recorder.encodings import (
    MARKED,
    POOL,
    ROWS,
    TEMPLATE,
    WITH_BOS,
    check,
    cut_right,
    ids_only,
    joined,
    numbered,
    padded,
    plain,
    question,
    refused,
    separate,
    separate_with_start,
    sft,
    template,
    tokenizer,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning",
)


@pytest.mark.parametrize(
    ("kind", "arguments", "template", "bos"),
    [
        ("leading", {}, TEMPLATE, False),
        pytest.param("trailing", {}, TEMPLATE, False, marks=pytest.mark.slow),
        ("within", {}, TEMPLATE, False),
        ("leading", {}, TEMPLATE, True),
        ("trailing", {"completion_only_loss": False}, TEMPLATE, True),
        ("conversational", {}, TEMPLATE, False),
        pytest.param("conversational", {}, WITH_BOS, False, marks=pytest.mark.slow),
        ("conversational", {"assistant_only_loss": True}, MARKED, False),
        pytest.param("messages", {}, TEMPLATE, False, marks=pytest.mark.slow),
        ("messages", {"assistant_only_loss": True}, MARKED, False),
        pytest.param("several turns", {}, TEMPLATE, False, marks=pytest.mark.slow),
        ("several turns", {"assistant_only_loss": True}, MARKED, False),
        ("ShareGPT", {}, TEMPLATE, False),
        ("several parts", {}, TEMPLATE, False),
        pytest.param("several parts", {"assistant_only_loss": True}, MARKED, False, marks=pytest.mark.slow),
        pytest.param("text", {}, TEMPLATE, False, marks=pytest.mark.slow),
        ("text", {}, TEMPLATE, True),
        ("conversational", {"padding_free": True, "max_length": None}, TEMPLATE, False),
        pytest.param("leading", {"padding_free": True, "max_length": None}, TEMPLATE, False, marks=pytest.mark.slow),
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


@pytest.mark.parametrize(
    ("encode", "kind", "bos", "said"),
    [
        (joined, "leading", False, "joined"),
        pytest.param(joined, "trailing", False, "joined", marks=pytest.mark.slow),
        (joined, "leading", True, "joined"),
        pytest.param(separate, "leading", False, "", marks=pytest.mark.slow),
        pytest.param(separate, "trailing", False, "", marks=pytest.mark.slow),
        (separate, "trailing", True, ""),
        (separate_with_start, "trailing", True, ""),
        pytest.param(template, "leading", False, "", marks=pytest.mark.slow),
        (template, "trailing", True, ""),
        (cut_right, "lengths", False, ""),
        pytest.param(question, "leading", False, "", marks=pytest.mark.slow),
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


@pytest.mark.parametrize(
    ("kind", "encode"),
    [
        ("leading", joined),
        ("trailing", separate),
        ("leading", template),
        ("trailing", cut_right),
        ("leading", None),
        ("trailing", None),
        *(
            pytest.param(kind, encode, marks=pytest.mark.slow)
            for kind, encode in (
                ("trailing", joined),
                ("leading", separate),
                ("trailing", template),
                ("leading", cut_right),
            )
        ),
    ],
)
def test_losses_are_those_of_training_with_a_tokenizer_that_marks_texts(
    kind: str, encode: Any, sentence_piece: Any, tmp_path: Path
) -> None:
    rows = ROWS[kind]
    if encode is None:
        trainer, test = sft(rows, tmp_path / "t", sentence_piece), Dataset.from_list(rows[POOL:])
    else:
        trainer, test = plain(encode, rows, tmp_path / "t", sentence_piece)
    check(trainer, rows, test, tmp_path / "d")


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
        trainer, rows[:POOL], [given[0], rows[11]], tmp_path / "e", "test example 1: it has no input_ids, but other"
    )


def test_what_no_loss_can_be_measured_of_is_refused(tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS["leading"]

    def other_labels(words: Any, row: dict[str, Any]) -> dict[str, Any]:
        ids = joined(words, row)["input_ids"]
        return {"input_ids": ids, "labels": [*ids[1:], -100]}

    trainer, _ = plain(other_labels, rows, tmp_path / "t", words)
    refused(trainer, rows[:POOL], rows[POOL:], tmp_path / "d", r"label 1 is \d+, but its input id is \d+")
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
        trainer,
        rows[:POOL],
        rows[POOL:],
        tmp_path / "d",
        r"cannot make a batch of this row alone \(RuntimeError: two\)",
    )
    trainer = sft(rows, tmp_path / "t", words, packing=True, max_length=64)
    refused(trainer, rows[:POOL], rows[POOL:], tmp_path / "d", "packing puts several examples.*Set packing=False")


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


@pytest.mark.parametrize("kind", ["leading", "messages"])
def test_streams_are_prepared_as_they_are_read(kind: str, tmp_path: Path) -> None:
    words, rows = tokenizer(), ROWS[kind]
    trainer = sft(rows, tmp_path / "t", words, streamed=True, max_steps=4)
    check(trainer, rows, Dataset.from_list(rows[POOL:]), tmp_path / "d")

# Texts of other scripts have letters that look like ours.
# ruff: noqa: RUF001
from __future__ import annotations

import unicodedata
from typing import Literal

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from gptdynamics.configs import TEXT_TOKENIZERS
from gptdynamics.measurement import score_texts
from gptdynamics.measurement.scores import UnicodeWords, text_tokenizer_of

word = st.sampled_from("the cat The is in garden , . red Haus grün 3.5 %".split())
text = st.lists(word, min_size=1, max_size=8).map(" ".join)


@given(st.lists(st.tuples(text, st.lists(text, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_scores_equal_sacrebleu_and_the_best_reference_of_rouge_score(pairs: list[tuple[str, list[str]]]) -> None:
    scores = score_texts([generated for generated, _ in pairs], [references for _, references in pairs])
    rouge = RougeScorer(["rougeL"])
    for at, (generated, references) in enumerate(pairs):
        bleu = sacrebleu.sentence_bleu(generated, references, use_effective_order=True).score
        best = max(rouge.score(reference, generated)["rougeL"].fmeasure for reference in references)
        assert scores["bleu"][at] == pytest.approx(bleu, abs=1e-4)
        assert scores["rougeL"][at] == pytest.approx(best, abs=1e-6)


def test_an_empty_text_scores_zero_and_a_reference_scores_full() -> None:
    scores = score_texts(["", "  \n", "The cat is red ."], [["a"], ["a"], ["A dog", "The cat is red ."]])
    assert list(scores) == ["bleu", "rougeL"]
    assert {values.dtype for values in scores.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(scores["bleu"], [0, 0, 100], atol=1e-4)
    np.testing.assert_allclose(scores["rougeL"], [0, 0, 1])


SCRIPTS = {
    "English": "The cat sat on the mat.",
    "German": "Über den Fluß läuft die schöne Brücke.",
    "Vietnamese": "Ở đó ấy ạ ừ.",
    "Turkish": "İstanbul'da ılık bir gün.",
    "Russian": "Привет, мир!",
    "Greek": "Καλημέρα κόσμε.",
    "Chinese": "来自北京的人喜欢苹果。",
    "Japanese": "東京はとても大きな都市です。",
    "Korean": "안녕하세요, 반갑습니다.",
    "Thai": "สวัสดีชาวโลก",
    "Lao": "ສະບາຍດີຊາວໂລກ",
    "Khmer": "សួស្តីពិភពលោក",
    "Burmese": "မင်္ဂလာပါကမ္ဘာလောက",
    "Tibetan": "བཀྲ་ཤིས་བདེ་ལེགས།",
    "Arabic": "مَرْحَبًا بِالعَالَمِ؟",
    "Persian": "می‌خواهم بروم.",
    "Hebrew": "שָׁלוֹם עוֹלָם",
    "Hindi": "नमस्ते दुनिया।",
    "Bengali": "ওহে বিশ্ব।",
    "Tamil": "வணக்கம் உலகம்.",
    "Telugu": "హలో ప్రపంచం.",
    "Georgian": "გამარჯობა მსოფლიო.",
    "Armenian": "Բարեւ աշխարհ։",
    "Amharic": "ሰላም ለዓለም።",
    "Devanagari digits": "१२३ ४५६",
    "emoji": "😀🎉 👩‍🚀",
    "dots": "……。",
    "full width": "ＡＢＣ　ＤＥＦ",
}
TOKENIZERS = {
    "English": "13a", "German": "13a", "Vietnamese": "intl", "Turkish": "intl", "Russian": "intl", "Greek": "intl",
    "Chinese": "zh", "Japanese": "char", "Korean": "intl", "Thai": "char", "Lao": "char", "Khmer": "char",
    "Burmese": "char", "Tibetan": "char", "Arabic": "intl", "Hindi": "intl",
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_text_equal_to_its_reference_scores_full_in_every_script(name: str) -> None:
    text, other = SCRIPTS[name], SCRIPTS["Armenian" if name != "Armenian" else "Tamil"]
    scores = score_texts([text, other], [[text], [text]])
    np.testing.assert_allclose(scores["bleu"][0], 100, atol=1e-3)
    assert scores["rougeL"].tolist() == [1, 0]
    assert text_tokenizer_of([text]) == TOKENIZERS.get(name, text_tokenizer_of([text]))
    # Accents in one character or two are the same text.
    for form in ("NFC", "NFD"):
        again = score_texts([unicodedata.normalize(form, text)], [[text]], text_tokenizer_of([text]))
        if text_tokenizer_of([text]) != "13a":
            assert again["rougeL"][0] == 1 and again["bleu"][0] == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "reference", "common", "sizes"),
    [
        # Longest common subsequence, and how many tokens each text has, counted by hand.
        ("他喜欢红苹果", "她喜欢苹果", 4, (6, 5)),
        ("Мама мыла белую раму", "мама мыла раму.", 3, (4, 3)),
        ("ذهب الولد إلى المدرسة", "ذهب إلى المدرسة؟", 3, (4, 3)),
        ("ฉันรักแมว", "ฉันรักหมา", 5, (7, 7)),
        ("मैं घर जाता हूँ।", "मैं घर आता हूँ", 3, (4, 4)),
        ("나는 사과를 좋아한다", "나는 좋아한다", 2, (3, 2)),
        ("GPT-4 很好", "GPT-4 不好", 3, (4, 4)),
        ("私はiPhoneが好き", "私はiPadが好き", 5, (6, 6)),
    ],
)
def test_rouge_of_other_scripts_counted_by_hand(text: str, reference: str, common: int, sizes: tuple[int, int]) -> None:
    precision, recall = common / sizes[0], common / sizes[1]
    found = score_texts([text], [[reference]])["rougeL"][0]
    assert found == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "references", "tokenizer"),
    [
        ("他喜欢红苹果，也喜欢香蕉。", ["她喜欢苹果，也喜欢香蕉。", "他喜欢香蕉"], "zh"),
        ("Мама мыла белую «раму».", ["мама мыла белую раму."], "intl"),
        ("東京はとても大きな都市です", ["東京は大きな都市です"], "char"),
        ("The cat, e.g. 3.5%", ["The cat e.g. 3.5 %"], "13a"),
    ],
)
def test_bleu_of_other_scripts_is_that_of_sacrebleu(text: str, references: list[str], tokenizer: str) -> None:
    wanted = sacrebleu.sentence_bleu(text, references, tokenize=tokenizer, use_effective_order=True).score
    assert 0 < wanted < 100
    assert score_texts([text], [references])["bleu"][0] == pytest.approx(wanted, abs=1e-4)
    assert score_texts([text], [references], tokenizer)["bleu"][0] == pytest.approx(wanted, abs=1e-4)


@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_of_ascii_text_the_words_are_those_of_rouge_score(text: str) -> None:
    expected = DefaultTokenizer().tokenize(text)
    assert UnicodeWords().tokenize(text) == (expected or UnicodeWords().tokenize(text))
    assert text_tokenizer_of([text]) == "13a"


@given(st.text(max_size=30), st.text(max_size=30))
def test_scores_of_any_text_are_in_their_range(text: str, reference: str) -> None:
    for tokenizer in TEXT_TOKENIZERS:
        scores = score_texts([text], [[reference or "x"]], tokenizer)
        assert 0 <= scores["bleu"][0] <= 100.001 and 0 <= scores["rougeL"][0] <= 1


def test_a_few_foreign_names_do_not_make_another_language() -> None:
    english = ["The mayor of Łódź spoke about trade.", *["Nothing else was said at the meeting."] * 10]
    assert text_tokenizer_of(english) == "13a"
    assert text_tokenizer_of([*english, "北京"]) == "intl"
    assert text_tokenizer_of([]) == "13a"


@pytest.mark.parametrize("tokenizer", ["13a", "intl"])
def test_how_accents_are_encoded_makes_no_difference(tokenizer: Literal["13a", "intl"]) -> None:
    composed, apart = "Crème brûlée à Zürich", unicodedata.normalize("NFD", "Crème brûlée à Zürich")
    for text, reference in ((composed, apart), (apart, composed)):
        scores = score_texts([text], [[reference]], tokenizer)
        assert scores["rougeL"][0] == 1
        assert scores["bleu"][0] == pytest.approx(100)

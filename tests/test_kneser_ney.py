"""Kneser-Ney estimates against a plain implementation of Chen and Goodman's formula, and whole model files."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from models import small_model
from test_ngram import after

from asr.checkpoint import save_model_folder
from asr.decode.ngram import TokenNGrams, WordNGrams
from asr.errors import DataError
from asr.lm.kneser_ney import BEGIN, END, UNKNOWN, estimate, write_arpa
from asr.lm.train import train_ngrams
from asr.tokenizer import CharacterTokenizer

Gram = tuple[int, ...]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model_folder(tmp_path / "model", small_model())
    return tmp_path / "model"


class Slow:
    """Interpolated modified Kneser-Ney by its recursive definition, with counts of distinct left words."""

    def __init__(self, texts: Sequence[Sequence[int]], words: int, order: int) -> None:
        self.words, self.order = words, order
        ended = [(BEGIN, *text, END) for text in texts]
        raw = Counter(t[i : i + k] for t in ended for k in range(1, order + 1) for i in range(len(t) - k + 1))
        left = Counter(gram[1:] for gram in raw if len(gram) > 1)
        self.seen = {
            gram: count if len(gram) == order or gram[0] == BEGIN else left[gram]
            for gram, count in raw.items()
            if gram != (BEGIN,)
        }

    def discounts(self, k: int) -> tuple[float, float, float]:
        n1, n2, n3, n4 = (sum(c == i and len(g) == k for g, c in self.seen.items()) for i in (1, 2, 3, 4))
        if not (n1 and n2 and n3 and n4):
            return 0.5, 1.0, 1.5
        y = n1 / (n1 + 2 * n2)
        found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        return found if 0 < found[0] < 1 and 0 < found[1] < 2 and 0 < found[2] < 3 else (0.5, 1.0, 1.5)

    def __call__(self, word: int, context: Gram) -> float:
        behind = {w: self.seen[(*context, w)] for w in range(self.words) if (*context, w) in self.seen}
        shorter = self(word, context[1:]) if context else 1 / (self.words - 1)
        if not behind:
            return shorter
        d = (0.0, *self.discounts(len(context) + 1))
        total = sum(behind.values())
        count = behind.get(word, 0)
        taken = sum(d[min(3, c)] for c in behind.values())
        return (count - d[min(3, count)]) / total + taken / total * shorter


def some_texts(seed: int, count: int = 60) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.choice((3, 3, 3, 4, 4, 5, 6)) for _ in range(draw.randrange(7))] for _ in range(count)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(2))
def test_probabilities_match_the_formula_and_sum_to_one(order: int, seed: int, tmp_path: Path) -> None:
    texts, words = some_texts(seed), 8  # 7 is never seen
    slow = Slow(texts, words, order)
    tokenizer = CharacterTokenizer.train(["abcde"])  # one letter for each word
    names = ["<s>", "</s>", "<unk>", *"abcde"]
    write_arpa(tmp_path / "lm.arpa", estimate(texts, words, order), names)
    scorer = TokenNGrams(tmp_path / "lm.arpa", tokenizer)
    ids = [tokenizer.eos_id, tokenizer.unknown_id, *tokenizer.encode("abcde")]
    for length in range(4):
        contexts = list(itertools.product(range(2, words), repeat=length))
        gains = after(scorer, [[ids[w - 1] for w in context] for context in contexts])[:, ids]
        assert torch.allclose(gains.exp().sum(1), torch.ones(len(contexts)), atol=1e-4)
        for context, row in zip(contexts, gains.exp().tolist(), strict=True):
            heard = (BEGIN, *context)[max(0, length + 2 - order) :]
            assert row == pytest.approx([slow(w, heard) for w in range(1, words)], abs=1e-5)


def test_discounts_are_estimated_from_sufficient_counts() -> None:
    slow = Slow(some_texts(3, 400), 8, 4)
    assert slow.discounts(4) != (0.5, 1.0, 1.5), "the formula is only tested if the fallback is not used"
    found = estimate(some_texts(3, 400), 8, 4)
    for words, prob in zip(found[3].words_Ek.tolist(), found[3].prob_E.tolist(), strict=True):
        assert prob == pytest.approx(slow(words[-1], tuple(words[:-1])), abs=1e-9)


def test_ngrams_are_trained_on_tokens_or_words(model: Path, tmp_path: Path) -> None:
    texts, tokenizer = tmp_path / "texts.txt", CharacterTokenizer.load(model)
    texts.write_text("Hello world\n\nhello, hold\n")  # the model's normaliser removes case and commas
    made = train_ngrams([texts], model, 3, tmp_path / "lm.arpa")
    assert (made.texts, made.ngrams[0]) == (2, 2 + tokenizer.vocab_size - 3)
    row = after(TokenNGrams(tmp_path / "lm.arpa", tokenizer), [tokenizer.encode("hell")])[0]
    assert int(row.argmax()) == tokenizer.encode("o")[0]
    made = train_ngrams([texts], model, 2, tmp_path / "words.arpa", "word")
    assert (made.texts, made.ngrams[0]) == (2, 6)
    scorer = WordNGrams(tmp_path / "words.arpa", tokenizer, 0.0)
    known, unknown = (
        float(after(scorer, [tokenizer.encode(w)])[0, tokenizer.encode(" ")[0]]) for w in ("hello", "wello")
    )
    assert known > unknown
    texts.write_text("\n ,\n")
    with pytest.raises(DataError, match=r"texts.txt: there is no text to make a language model of"):
        train_ngrams([texts], model, 3, tmp_path / "lm.arpa")


def test_unknown_word_has_a_positive_probability() -> None:
    (one,) = estimate([[3], [4]], 5, 1)
    assert one.prob_E[BEGIN] == 0
    assert one.prob_E[UNKNOWN] > 0

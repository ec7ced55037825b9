"""Phrase bonuses against a search for phrases in the finished text, and their effect on a beam."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.decode.phrases import PhraseScorer
from asr.decode.search import SearchOptions, Weighted, search
from asr.errors import ConfigError, DataError
from asr.phrases.lists import Phrase, read_phrases
from asr.phrases.spelling import Speller, spellings, word_edges
from asr.tokenizer import CharacterTokenizer

EOS, START = 0, 1


class Pieces:
    """A vocabulary like Whisper's: pieces, some with a leading space."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = ("", "", *pieces)
        self.vocab_size = len(self.pieces)

    def encode(self, text: str) -> list[int]:
        text, ids = f" {text}", []
        while text:
            fits = [i for i, piece in enumerate(self.pieces) if piece and text.startswith(piece)]
            if not fits:
                return []
            ids.append(max(fits, key=lambda i: len(self.pieces[i])))
            text = text[len(self.pieces[ids[-1]]) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[i] for i in ids).strip()


PIECES = Pieces(" a", "a", " b", "b", ",", " ab", " ")
LETTERS = CharacterTokenizer.train(["ab ,"])
TOKENIZERS = pytest.mark.parametrize("tokenizer", [PIECES, LETTERS], ids=["pieces", "letters"])


def run(scorer: PhraseScorer, tokens: Sequence[int]) -> list[float]:
    """Return the bonus of each token of a text."""
    gains = []
    gain_1V, state = scorer.step(torch.tensor([[START, START]]), scorer.start(None))
    for token in tokens:
        gains.append(float(gain_1V[0, token]))
        gain_1V, state = scorer.step(torch.tensor([[token]]), state)
    return gains


def end_of(tokenizer: Pieces | CharacterTokenizer) -> int:
    return tokenizer.eos_id if isinstance(tokenizer, CharacterTokenizer) else EOS


def worth(tokenizer: Pieces | CharacterTokenizer, phrases: Sequence[Phrase], tokens: list[int]) -> float:
    """Return the bonus of a finished text: of its leftmost, then longest phrases from word start to word end."""
    joins, opens = word_edges(tokenizer)
    known: dict[tuple[int, ...], float] = {}
    for phrase in phrases:
        for text in spellings(phrase.text):
            ids = tuple(tokenizer.encode(text))
            if ids and tokenizer.decode(ids) == text:
                known[ids] = max(known.get(ids, 0.0), phrase.weight * len(ids))
    at, total = 0, 0.0
    while at < len(tokens):
        begins = at == 0 or opens[tokens[at - 1]] or not joins[tokens[at]]
        ends = [n for n in range(at + 1, len(tokens) + 1) if n == len(tokens) or not joins[tokens[n]]]
        longest = max((n for n in ends if begins and tuple(tokens[at:n]) in known), default=None)
        total += 0.0 if longest is None else known[tuple(tokens[at:longest])]
        at = longest or at + 1
    return total


lists = st.lists(
    st.builds(
        Phrase, st.text("ab ", min_size=1, max_size=7).map(lambda t: " ".join(t.split())), st.sampled_from([1, 2.5])
    ).filter(lambda phrase: phrase.text),
    max_size=5,
)
texts = st.lists(st.integers(0, 100), max_size=14)


def text_of(choices: list[int], tokenizer: Pieces | CharacterTokenizer) -> list[int]:
    """Return arbitrary text tokens, including the lone space."""
    ids = [i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]) or (tokenizer is PIECES and i > 1)]
    return [ids[choice % len(ids)] for choice in choices]


@TOKENIZERS
@settings(max_examples=300)
@given(phrases=lists, choices=texts)
def test_bonus_of_a_finished_text_is_that_of_its_phrases(
    tokenizer: Pieces | CharacterTokenizer, phrases: list[Phrase], choices: list[int]
) -> None:
    tokens = text_of(choices, tokenizer)
    gains = run(PhraseScorer(phrases, Speller(tokenizer)), [*tokens, end_of(tokenizer)])
    assert sum(gains) == pytest.approx(worth(tokenizer, phrases, tokens), abs=1e-5)


@TOKENIZERS
@settings(max_examples=100)
@given(phrases=lists, choices=texts)
def test_no_text_gains_more_than_the_bound_on_its_rise(
    tokenizer: Pieces | CharacterTokenizer, phrases: list[Phrase], choices: list[int]
) -> None:
    tokens, scorer = text_of(choices, tokenizer), PhraseScorer(phrases, Speller(tokenizer))
    gains = run(scorer, [*tokens, end_of(tokenizer)])
    for at in range(len(gains)):
        assert sum(gains[at:]) <= scorer.rise.each * (len(tokens) - at) + scorer.rise.once + 1e-5


@TOKENIZERS
@settings(max_examples=50)
@given(phrases=lists, rows=st.lists(texts, min_size=1, max_size=5), order=st.randoms())
def test_batched_and_reordered_hypotheses_get_the_same_bonus_as_alone(
    tokenizer: Pieces | CharacterTokenizer, phrases: list[Phrase], rows: list[list[int]], order: random.Random
) -> None:
    scorer = PhraseScorer(phrases, Speller(tokenizer))
    shortest = min(len(row) for row in rows)
    texts_NL = [text_of(row[:shortest], tokenizer) for row in rows]
    alone = [run(scorer, text) for text in texts_NL]
    index = list(range(len(rows)))
    gain_NV, state = scorer.step(torch.full((len(rows), 1), START), scorer.start(None))
    for at in range(shortest):
        token_N = torch.tensor([texts_NL[i][at] for i in index])
        together = gain_NV.expand(len(index), -1).gather(1, token_N[:, None])[:, 0].tolist()
        assert together == pytest.approx([alone[i][at] for i in index], abs=1e-6)
        moved = order.choices(range(len(index)), k=len(index))  # as in a beam: some duplicated, some dropped
        index = [index[i] for i in moved]
        gain_NV, state = scorer.step(token_N[moved, None], scorer.reorder(state, torch.tensor(moved)))


def test_bonus_is_given_per_token_and_revoked_when_the_match_breaks() -> None:
    scorer = PhraseScorer([Phrase("a b ab", 2.0)], Speller(PIECES))
    a, b, ab, comma = (PIECES.pieces.index(piece) for piece in (" a", " b", " ab", ","))
    assert run(scorer, [a, b, ab, EOS]) == [2, 2, 2, 0]
    assert run(scorer, [a, b, comma]) == [2, 2, -4]
    assert run(scorer, [a, b, a, b]) == [2, 2, -2, 2]  # the broken match and the one that begins
    assert run(scorer, [a, EOS]) == [2, -2]


def test_prefix_tokens_do_not_start_a_phrase() -> None:
    scorer = PhraseScorer([Phrase("a b")], Speller(PIECES))
    a, b = PIECES.pieces.index(" a"), PIECES.pieces.index(" b")
    gain_NV, state = scorer.step(torch.tensor([[START, a], [START, b]]), scorer.start(None))
    assert gain_NV.tolist() == [[float(i == a) for i in range(PIECES.vocab_size)]]
    gain_NV, _ = scorer.step(torch.tensor([[b], [a]]), state)
    assert gain_NV[:, b].tolist() == [0, 1]


def test_phrase_matches_whole_words_only() -> None:
    scorer = PhraseScorer([Phrase("ab")], Speller(PIECES))
    ab, b, comma = (PIECES.pieces.index(piece) for piece in (" ab", "b", ","))
    assert run(scorer, [ab, b]) == [1, -1]  # "abb"
    assert run(scorer, [ab, comma, ab, EOS]) == [1, 0, 1, 0]
    letters = PhraseScorer([Phrase("ab")], Speller(LETTERS))
    assert run(letters, LETTERS.encode("b ab, aab")) == [0, 0, 1, 1, 0, 0, 1, -1, 0]


@pytest.mark.parametrize("turn", [1, -1])
def test_shorter_phrase_keeps_its_bonus_when_the_longer_one_breaks(turn: int) -> None:
    scorer = PhraseScorer([Phrase("a"), Phrase("a b a", 3.0)][::turn], Speller(PIECES))
    a, b = PIECES.pieces.index(" a"), PIECES.pieces.index(" b")
    assert run(scorer, [a, b, b]) == [3, 3, -5]
    assert run(scorer, [a, b, a, EOS]) == [3, 3, 3, 0]


def test_phrase_matches_in_lower_case_and_capitalised() -> None:
    assert spellings("new York") == ["new York", "new york", "New York"]
    tokenizer = CharacterTokenizer.train(["new york NY"])
    scorer = PhraseScorer([Phrase("new York")], Speller(tokenizer))
    for text in spellings("new York"):
        assert sum(run(scorer, tokenizer.encode(text))) == 8
    lower = CharacterTokenizer.train(["new york"])  # spellings it cannot encode are left out
    assert sum(run(PhraseScorer([Phrase("New York")], Speller(lower)), lower.encode("new york"))) == 8


def test_phrases_that_the_vocabulary_cannot_write_are_left_out_and_named() -> None:
    tokenizer = CharacterTokenizer.train(["new york"])
    message = r"^phrases: the model's vocabulary cannot write 'Zoë', 'Ål': left out$"
    with pytest.warns(UserWarning, match=message) as told:
        scorer = PhraseScorer([Phrase("Zoë"), Phrase("york"), Phrase("Ål")], Speller(tokenizer))
    assert len(told) == 1
    assert sum(run(scorer, tokenizer.encode("york"))) == 4
    many = [Phrase("é" * n) for n in range(1, 8)]
    with pytest.raises(ConfigError, match=r"cannot write 'é', 'éé', .*, 'ééééé' and 2 more: none is left$"):
        PhraseScorer(many, Speller(tokenizer))


def test_word_characters_are_recognised_in_every_script() -> None:
    tokenizer = CharacterTokenizer.train(["aж4-' \u4e2d\u0e01\u0301"])
    joins, _ = word_edges(tokenizer)
    joined = {tokenizer.characters[i - tokenizer.first_text_id] for i, j in enumerate(joins) if j}
    assert joined == {"a", "ж", "4", "\u0301"}


class Steady:
    """A scorer whose log-probabilities depend only on the last token."""

    def __init__(self, log_prob_VV: Tensor) -> None:
        self.log_prob_VV = log_prob_VV.log_softmax(-1)

    def start(self, memory: Tensor) -> None:
        return None

    def step(self, tokens_NL: Tensor, state: None) -> tuple[Tensor, None]:
        return self.log_prob_VV[tokens_NL[:, -1]], None

    def reorder(self, state: None, index_N: Tensor) -> None:
        return None


@pytest.mark.parametrize("beam", [1, 4])
def test_listed_phrase_wins_when_the_model_is_uncertain(beam: int) -> None:
    a, inside, b = (PIECES.pieces.index(piece) for piece in (" a", "a", " b"))
    log_prob_VV = torch.full((9, 9), -9.0)
    log_prob_VV[START, a], log_prob_VV[START, b] = 0.0, 0.5  # " b" is slightly ahead
    log_prob_VV[a, inside], log_prob_VV[a, EOS] = 0.0, 0.2
    log_prob_VV[b, EOS] = log_prob_VV[inside, EOS] = 0.0
    model, options = Weighted("model", Steady(log_prob_VV), 1.0), SearchOptions(beam, length_penalty=0.0)
    start_BP = torch.full((2, 1), START)
    assert [h.tokens for (h, *_) in search([model], None, start_BP, EOS, [4, 4], options)] == [(b,)] * 2
    listed = Weighted("phrases", PhraseScorer([Phrase("aa")], Speller(PIECES)), 1.0)
    for best, *_ in search([model, listed], None, start_BP, EOS, [4, 4], options):
        assert best.tokens == (a, inside)
        assert best.parts["phrases"] == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\n# none\n", ": it holds no phrases; write one per line"),
        (b"a\tb", ":1: the weight must be a number above 0, not 'b'"),
        (b"x\na\t-1", ":2: the weight must be a number above 0, not '-1'"),
        (b"a\tnan", ":1: the weight must be a number above 0, not 'nan'"),
        (b"# x\n\t2", ":2: no phrase before the tab"),
        (b"a\t2\tc", ":1: expected a phrase, perhaps a tab and a weight, and nothing more"),
        (b"a\n\xff", r":2: not UTF-8 \(byte 0xff\); save the file as UTF-8"),
    ],
)
def test_invalid_phrase_list_is_reported_with_file_and_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}{problem}$"):
        read_phrases(path)


def test_phrase_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffAllison\r\n# people\n\nZoë  de Vries\t2.5\nC#\t\n".encode())
    assert read_phrases(path) == [Phrase("Allison"), Phrase("Zoë de Vries", 2.5), Phrase("C#")]
    with pytest.raises(DataError, match=r"nothing\.txt: cannot be read: No such file or directory$"):
        read_phrases(tmp_path / "nothing.txt")

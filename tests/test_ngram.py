"""N-gram scorers against a plain back-off in every context; intact and broken ARPA files written by hand."""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch
from test_search import Table
from vocabularies import WHISPER_EN

from asr.decode.arpa import read_arpa
from asr.decode.ngram import TokenNGrams, WordNGrams, symbols
from asr.decode.search import Scorer, SearchOptions, Weighted, search
from asr.errors import ConfigError
from asr.tokenizer import CharacterTokenizer, SentencePieceTokenizer

LETTERS = CharacterTokenizer.train(["ab c"])
SPACE = symbols(LETTERS)[LETTERS.encode(" ")[0]]

# "b a c" is there without "b a", "a" and "c b" have no back-off, "<unk>" has one but begins no 2-gram, and columns are
# separated as by KenLM and as by SRILM.
ARPA = f"""made by hand

\\data\\
ngram 1=7
ngram 2=5
ngram 3=3

\\1-grams:
-99\t<s>\t-0.25
-0.9\t</s>
-1.1\t<unk>\t-0.1
-0.7\ta
-0.8 b -0.4
-1.0\tc\t-0.3
-1.2\t{SPACE}\t0.2

\\2-grams:
-0.3\t<s> a\t-0.2
-0.6\ta b\t-0.5
-0.5\tb {SPACE}
-0.2\tc b
-0.4\t{SPACE} </s>

\\3-grams:
-0.15\t<s> a b
-0.25\ta b {SPACE}
-0.35\tb a c

\\end\\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return path


class Plain:
    """Back-off by its definition: an n-gram's own probability, or back-off times that in a shorter context."""

    def __init__(self, text: str) -> None:
        self.log_prob: dict[tuple[str, ...], float] = {}
        self.back_off: dict[tuple[str, ...], float] = {}
        order = 0
        for line in text.splitlines():
            fields = line.split()
            if line.endswith("-grams:"):
                order += 1
            elif order and len(fields) > order:
                words = tuple(fields[1 : order + 1])
                self.log_prob[words] = float(fields[0]) * math.log(10)
                self.back_off[words] = float(fields[order + 1]) * math.log(10) if len(fields) > order + 1 else 0.0
        self.order = order

    def __call__(self, word: str, context: Sequence[str]) -> float:
        known = [w if (w,) in self.log_prob else "<unk>" for w in (*context, word)]
        *context, word = known
        context = context[max(0, len(context) - self.order + 1) :]
        if (*context, word) in self.log_prob:
            return self.log_prob[(*context, word)]
        return self.back_off.get(tuple(context), 0.0) + self(word, context[1:])


def after(scorer: Scorer, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the scores after texts of one length, fed token by token behind a start token."""
    gains, state = scorer.step(torch.tensor([[1]] * len(texts)), scorer.start(None))
    for tokens in zip(*texts, strict=True):
        gains, state = scorer.step(torch.tensor(tokens)[:, None], state)
    return gains


def test_scores_equal_a_plain_back_off_in_every_context(arpa: Path) -> None:
    plain, scorer, names = Plain(ARPA), TokenNGrams(arpa, LETTERS), symbols(LETTERS)
    for length in range(5):
        texts = list(itertools.product(range(2, LETTERS.vocab_size), repeat=length))
        gains = after(scorer, texts)
        for text, row in zip(texts, gains, strict=True):
            expected = [plain(name, ["<s>", *(names[i] for i in text)]) for name in names]
            assert row.tolist() == pytest.approx(expected, abs=1e-5)


def test_gzip_spaces_and_crlf_change_nothing(arpa: Path, tmp_path: Path) -> None:
    packed = tmp_path / "lm.arpa.gz"
    packed.write_bytes(gzip.compress(ARPA.replace("\t", " ").replace("\n", "\r\n").encode()))
    assert read_arpa(packed).words == read_arpa(arpa).words
    a, b = (after(TokenNGrams(path, LETTERS), [[4, 5, 6]]) for path in (packed, arpa))
    assert torch.equal(a, b)


def test_batching_and_reordering_change_no_score(arpa: Path) -> None:
    scorer = TokenNGrams(arpa, LETTERS)
    texts = list(itertools.product(LETTERS.encode("abc "), repeat=3))
    together = after(scorer, texts)
    assert all(torch.equal(after(scorer, [text])[0], row) for text, row in zip(texts, together, strict=True))
    _, state = scorer.step(torch.tensor([[1], [1], [1]]), scorer.start(None))
    _, state = scorer.step(torch.tensor([LETTERS.encode("abc")]).T, state)
    state = scorer.reorder(state, torch.tensor([2, 2, 0]))
    moved, _ = scorer.step(torch.tensor([LETTERS.encode("bbb")]).T, state)
    assert torch.equal(moved, after(scorer, [LETTERS.encode(text) for text in ("cb", "cb", "ab")]))


def test_missing_tokens_are_as_probable_as_the_rarest_without_unk(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\nngram 1=5\n\n\\1-grams:\n-99 <s>\n-1 </s>\n-0.5 a\n-0.7 b\n-0.25 elsewhere\n\\end\\\n")
    (row,) = after(TokenNGrams(path, CharacterTokenizer.train(["abz"])), [[]])
    a, b, z = CharacterTokenizer.train(["abz"]).encode("abz")
    assert row[[2, a, b, z]].tolist() == pytest.approx([x * math.log(10) for x in (-1, -0.5, -0.7, -1)])


def test_symbols_are_unique_and_without_whitespace() -> None:
    odd = CharacterTokenizer.train(["a \t\u2581\n\u00a0"], ["en"])
    names = symbols(odd)
    assert len(set(names)) == odd.vocab_size
    assert all(name.encode().split() == [name.encode()] for name in names)
    assert names[2] == "</s>"
    assert names[odd.encode(" ")[0]] == "\u2581"
    assert names[odd.encode("\u2581")[0]] == f"<{odd.encode(chr(0x2581))[0]}>"


# ---- words ------------------------------------------------------------------------------------------------

WORDS = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-99 <s> -0.2
-1.0 </s>
-2.0 <unk> -0.3
-0.5 a -0.4
-0.7 ab -0.1
-0.9 ba

\\2-grams:
-0.3 <s> ab
-0.2 a ab
-0.6 ab a
-0.1 ba </s>

\\end\\
"""


def sum_of(scorer: Scorer, tokens: Iterable[int]) -> float:
    total = 0.0
    gains, state = scorer.step(torch.tensor([[1]]), scorer.start(None))
    for token in tokens:
        total += float(gains[0, token])
        gains, state = scorer.step(torch.tensor([[token]]), state)
    return total


def pieces() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(["ab a ba aab abab"] * 4, vocab_size=10)


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer.train(["ab "]), pieces()], ids=["characters", "pieces"])
def test_word_scores_add_up_with_a_penalty_for_unknown_words(
    tokenizer: CharacterTokenizer | SentencePieceTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "words.arpa"
    path.write_text(WORDS)
    scorer, plain = WordNGrams(path, tokenizer, 1.5), Plain(WORDS)
    for text in ("", "a", "ab a", "ba ba", "bb", "ab bb a", "a aab", "ab ba"):
        words = text.split()
        expected = sum(plain(w, ["<s>", *words[:i]]) for i, w in enumerate([*words, "</s>"]))
        expected -= 1.5 * sum(w not in ("a", "ab", "ba") for w in words)
        assert sum_of(scorer, [*tokenizer.encode(text), tokenizer.eos_id]) == pytest.approx(expected, abs=1e-5), text


def test_words_with_letters_of_several_tokens_are_known(tmp_path: Path) -> None:
    path, tokenizer = tmp_path / "words.arpa", WHISPER_EN
    text = WORDS.replace("ab", "über").replace("ba", "нет")
    path.write_text(text, encoding="utf-8")
    assert any("\ufffd" in tokenizer.pieces([i])[0] for i in tokenizer.encode("über нет"))
    scorer, plain = WordNGrams(path, tokenizer, 1.5), Plain(text)
    words = ["über", "a", "нет", "über"]
    expected = sum(plain(w, ["<s>", *words[:i]]) for i, w in enumerate([*words, "</s>"]))
    found = sum_of(scorer, [*tokenizer.encode(" " + " ".join(words)), tokenizer.eos_id])
    assert found == pytest.approx(expected, abs=1e-5)


def test_batching_and_reordering_change_no_word_score(tmp_path: Path) -> None:
    path, tokenizer = tmp_path / "words.arpa", CharacterTokenizer.train(["ab "])
    path.write_text(WORDS)
    scorer = WordNGrams(path, tokenizer, 1.5)
    texts = list(itertools.product(tokenizer.encode("ab "), repeat=4))
    together = after(scorer, texts)
    assert all(torch.equal(after(scorer, [text])[0], row) for text, row in zip(texts, together, strict=True))
    _, state = scorer.step(torch.tensor([[1], [1]]), scorer.start(None))
    _, state = scorer.step(torch.tensor([tokenizer.encode("ab")]).T, state)
    moved, _ = scorer.step(torch.tensor([[tokenizer.encode("a")[0]]]), scorer.reorder(state, torch.tensor([1])))
    assert torch.equal(moved, after(scorer, [tokenizer.encode("ba")]))


# ---- in the search ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_wide_beam_with_fusion_finds_the_best_text(arpa: Path, weight: float) -> None:
    table = Table(LETTERS.vocab_size, 5)
    table.log_prob[..., list(LETTERS.suppressed_ids)] = -math.inf
    plain, names, eos = Plain(ARPA), symbols(LETTERS), LETTERS.eos_id
    scorers = [Weighted("t", table, 1.0), Weighted("lm", TokenNGrams(arpa, LETTERS), weight)]
    options = SearchOptions(beam_size=300, length_penalty=0.0)
    found = search(scorers, torch.arange(3), torch.full((3, 1), 1), eos, [4] * 3, options)
    for b in range(3):
        best = (-math.inf, ())
        for n in range(4):
            for text in itertools.product(range(4, LETTERS.vocab_size), repeat=n):
                path = [1, *text, eos]
                heard = sum(float(table.log_prob[b, i, x, y]) for i, (x, y) in enumerate(itertools.pairwise(path)))
                said = ["<s>", *(names[i] for i in (*text, eos))]
                lm = sum(plain(said[i], said[:i]) for i in range(1, len(said)))
                best = max(best, (heard + weight * lm, text))
        assert found[b][0].tokens == best[1]
        assert found[b][0].score == pytest.approx(best[0], abs=1e-4)


# ---- broken files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (ARPA, "", "lm.arpa: the file is empty"),
        (ARPA, "hello\n", "lm.arpa:1: the file ends here: it is not an ARPA language model, or was cut off"),
        ("\\end\\\n", "", "the file ends here: it is not an ARPA language model, or was cut off"),
        ("ngram 1=7\nngram 2=5\nngram 3=3\n", "", "lm.arpa:5: there is no 'ngram 1=...'"),
        ("ngram 2=5", "ngram 3=5", "lm.arpa:5: expected 'ngram 2=' and a number, not 'ngram 3=5'"),
        ("ngram 2=5", "ngram 2=many", "lm.arpa:5: expected 'ngram 2=' and a number"),
        ("ngram 2=5", "ngram 2=99999999999", "lm.arpa:5: more than 20,000,000 n-grams"),
        ("ngram 2=5", "ngram 2=4", "lm.arpa:22: more 2-grams than the 4 that the header gives"),
        ("ngram 2=5", "ngram 2=6", "lm.arpa:24: the section ends after 5 2-grams, but the header gives 6"),
        ("\\2-grams:", "\\4-grams:", "lm.arpa:17: expected \\2-grams:, not '\\4-grams:'"),
        ("-0.6\ta b\t-0.5", "-0.6\ta", "lm.arpa:19: expected a probability, 2 words and perhaps a back-off"),
        ("-0.6\ta b\t-0.5", "0.6\ta b\t-0.5", "lm.arpa:19: '0.6' is not a logarithm of a probability (0 or less)"),
        ("-0.6\ta b\t-0.5", "nan\ta b\t-0.5", "lm.arpa:19: 'nan' is not a logarithm of a probability"),
        ("-0.6\ta b\t-0.5", "-0.6\ta b\t-inf", "lm.arpa:19: '-inf' is not a logarithm of a back-off"),
        ("-0.6\ta b\t-0.5", "-0.6\ta x\t-0.5", "lm.arpa:19: 'x' is not among the 1-grams"),
        ("-0.6\ta b\t-0.5", "-0.6\tc b\t-0.5", "lm.arpa:21: this n-gram is listed twice"),
        ("-1.0\tc\t-0.3", "-1.0\ta\t-0.3", "lm.arpa:14: 'a' is listed twice"),
        ("-0.9\t</s>\n", "-0.9\t\x1b[31m\n", "lm.arpa:22: '</s>' is not among the 1-grams"),
        ("-0.4\t\u2581 </s>", "-0.4\t\x1b[31m b", "lm.arpa:22: '\\x1b[31m' is not among the 1-grams"),
    ],
)
def test_broken_file_is_reported_with_its_line(arpa: Path, old: str, new: str, says: str) -> None:
    assert old in ARPA
    arpa.write_text(ARPA.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        TokenNGrams(arpa, LETTERS)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_unreadable_files_are_reported(arpa: Path, tmp_path: Path) -> None:
    arpa.write_bytes(ARPA.encode().replace(b"-0.7\ta", b"-0.7\t\xff"))
    with pytest.raises(ConfigError, match=r"lm.arpa:12: not UTF-8 \(byte 0xff\)"):
        TokenNGrams(arpa, LETTERS)
    (tmp_path / "torn.gz").write_bytes(gzip.compress(ARPA.encode())[:-30])
    with pytest.raises(ConfigError, match=r"torn.gz:.*damaged"):
        TokenNGrams(tmp_path / "torn.gz", LETTERS)
    with pytest.raises(ConfigError, match="none: cannot be read: No such file"):
        TokenNGrams(tmp_path / "none", LETTERS)


def test_lm_that_does_not_fit_the_tokens_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.arpa"
    path.write_text(WORDS)
    with pytest.raises(ConfigError, match="1 of its 3 different words are tokens of this model; for n-grams of words"):
        TokenNGrams(path, CharacterTokenizer.train(["xyaz"]))
    with pytest.raises(ConfigError, match="contain no spaces"):
        WordNGrams(path, CharacterTokenizer.train(["ab"]), 0.0)
    with pytest.raises(ConfigError, match="none of its words can be written"):
        WordNGrams(path, CharacterTokenizer.train(["x y"]), 0.0)
    path.write_text(WORDS.replace("</s>", "<end>"))
    with pytest.raises(ConfigError, match="</s> is not among its 1-grams"):
        TokenNGrams(path, CharacterTokenizer.train(["ab"]))

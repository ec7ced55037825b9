"""N-gram language models as scorers for shallow fusion (Gulcehre et al. 2015): over tokens, or over words.

Shapes: N hypotheses, L tokens, V vocabulary, W words of the language model, X nodes, E arcs, C characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from asr.decode.arpa import Order, read_arpa
from asr.decode.backoff import ROOT, BackOff, back_off
from asr.errors import ConfigError, printable
from asr.lengths import pad_tokens

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
_SPECIAL = frozenset({BEGIN, END, UNKNOWN, "<UNK>"})
SPACE = "\u2581"  # replaces spaces, which separate words in the file; SentencePiece's own sign
LEAST_KNOWN = 0.5


class Tokenizer(Protocol):
    """What a language model needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_id(self) -> int: ...

    @property
    def suppressed_ids(self) -> tuple[int, ...]: ...

    def pieces(self, ids: Sequence[int]) -> list[str]: ...

    def spelled(self, id: int) -> bytes: ...


def symbols(tokenizer: Tokenizer) -> list[str]:
    """Return how each token is written in the files of token models.

    Text is written as SentencePiece writes it, with U+2581 for a space.  Tokens that have no text, or whose text is
    taken or cannot be written between spaces, are written as their number in angle brackets; the end token is </s>.
    """
    taken = set(_SPECIAL)
    found = []
    for i in range(tokenizer.vocab_size):
        (piece,) = tokenizer.pieces([i])
        name = piece.replace(" ", SPACE)
        if i in tokenizer.suppressed_ids or name in taken or name.encode().split() != [name.encode()]:
            name = f"<{i}>"
        taken.add(name)
        found.append(END if i == tokenizer.eos_id else name)
    return found


def read_ngrams(path: Path, tokenizer: Tokenizer, unit: Literal["token", "word"], penalty: float) -> NGramScorer:
    """Return the scorer of an ARPA file over tokens, or over words with a `penalty` in nats for unknown words.

    Raises ConfigError naming the file, and the line if that is broken.
    """
    return TokenNGrams(path, tokenizer) if unit == "token" else WordNGrams(path, tokenizer, penalty)


class TokenNGrams:
    """Scores each next token.  Each token missing from the file has the probability of <unk>."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        names = symbols(tokenizer)
        known = {*names, *_SPECIAL}
        model, ids, count = _read(path, known.__contains__)
        tokens, words = len(ids.keys() - _SPECIAL), count - len(ids.keys() & _SPECIAL)
        if tokens < LEAST_KNOWN * words:
            what = f"{tokens} of its {words} different words are tokens of this model"
            raise ConfigError(f"{printable(path)}: {what}; for n-grams of words, set the unit to word")
        self._model = model
        self._word_V = torch.tensor([ids.get(name, ids[UNKNOWN]) for name in names])
        self._begin = _begin(model, ids)

    def start(self, memory: Any) -> Tensor | None:
        return None

    def step(self, tokens_NL: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        self._on(tokens_NL.device)
        if state is None:  # start tokens come first; the language model has its own instead
            state, tokens_NL = tokens_NL.new_full((len(tokens_NL),), self._begin), tokens_NL[:, :0]
        for tokens_N in tokens_NL.unbind(1):
            _, after_N = self._model.score(self._word_V[tokens_N], state)
            state = torch.where(tokens_N < 0, state, after_N)
        return self._model.all_words(state)[:, self._word_V], state

    def reorder(self, state: Tensor | None, index_N: Tensor) -> Tensor | None:
        return None if state is None else state[index_N]

    def _on(self, device: torch.device) -> None:
        if self._word_V.device != device:
            self._model, self._word_V = self._model.to(device), self._word_V.to(device)


class WordState(NamedTuple):
    """The complete words of each hypothesis, as a context, and its unfinished word, as a node of the spelling trie."""

    context_N: Tensor
    node_N: Tensor


class WordNGrams:
    """Scores each word when the next word begins or the text ends.

    Words are what stands between spaces, case-sensitive, however the tokens spell them.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, penalty: float) -> None:
        pieces = [tokenizer.spelled(i) for i in range(tokenizer.vocab_size)]
        letters = sorted(set(b"".join(pieces)))
        if ord(" ") not in letters:
            raise ConfigError(f"{printable(path)}: this model's tokens contain no spaces; set the unit to token")
        self._spelling = _Spelling(letters)
        self._model, ids, _ = _read(path, lambda word: word in _SPECIAL or set(word.encode()) <= set(letters))
        words = {word: i for word, i in ids.items() if word not in _SPECIAL}
        if not words:
            raise ConfigError(f"{printable(path)}: none of its words can be written with the model's vocabulary")
        self._table = self._spelling.table(words, ids[UNKNOWN])
        self._letters_VC = self._spelling.of_pieces(pieces)
        self._opens_V = torch.tensor([piece.startswith(b" ") for piece in pieces])
        self._unknown, self._end, self._eos = ids[UNKNOWN], ids[END], tokenizer.eos_id
        self._begin, self._penalty = _begin(self._model, ids), penalty

    def start(self, memory: Any) -> WordState | None:
        return None

    def step(self, tokens_NL: Tensor, state: WordState | None) -> tuple[Tensor, WordState]:
        self._on(tokens_NL.device)
        if state is None:
            begin_N = tokens_NL.new_full((len(tokens_NL),), self._begin)
            state, tokens_NL = WordState(begin_N, torch.full_like(begin_N, _Spelling.NONE)), tokens_NL[:, :0]
        for tokens_N in tokens_NL.unbind(1):
            state = self._follow(tokens_N, state)
        word_N, context_N = self._word(state)
        end_N, _ = self._model.score(torch.full_like(context_N, self._end), context_N)
        gain_NV = torch.where(self._opens_V, word_N[:, None], 0.0)
        gain_NV[:, self._eos] = word_N + end_N
        return gain_NV, state

    def reorder(self, state: WordState | None, index_N: Tensor) -> WordState | None:
        return None if state is None else WordState(state.context_N[index_N], state.node_N[index_N])

    def _word(self, state: WordState) -> tuple[Tensor, Tensor]:
        """Return the score of the unfinished word if it ends here, and the context after it."""
        word_N = self._table.word_X[state.node_N]
        log_prob_N, next_N = self._model.score(word_N, state.context_N)
        log_prob_N = torch.where(word_N == self._unknown, log_prob_N - self._penalty, log_prob_N)
        none_N = state.node_N == _Spelling.NONE
        return torch.where(none_N, 0.0, log_prob_N), torch.where(none_N, state.context_N, next_N)

    def _follow(self, tokens_N: Tensor, state: WordState) -> WordState:
        _, after_N = self._word(state)
        opens_N = self._opens_V[tokens_N]
        context_N = torch.where(opens_N, after_N, state.context_N)
        node_N = torch.where(opens_N, _Spelling.NONE, state.node_N)
        for letter_N in self._letters_VC[tokens_N].unbind(1):
            node_N = torch.where(letter_N >= 0, self._table.spell(letter_N, node_N), node_N)
        none_N = tokens_N < 0
        return WordState(torch.where(none_N, state.context_N, context_N), torch.where(none_N, state.node_N, node_N))

    def _on(self, device: torch.device) -> None:
        if self._opens_V.device != device:
            self._model, self._table = self._model.to(device), self._table.to(device)
            self._letters_VC, self._opens_V = self._letters_VC.to(device), self._opens_V.to(device)


NGramScorer = TokenNGrams | WordNGrams


class _Table(NamedTuple):
    """The trie of the words' spellings.

    key_E: node x C + letter of each arc, sorted.  next_E: where the arc leads.  word_X: the word that ends at each
    node.
    """

    letters: int
    key_E: Tensor
    next_E: Tensor
    word_X: Tensor

    def to(self, device: torch.device) -> _Table:
        return _Table(self.letters, *(x.to(device) for x in self[1:]))

    def spell(self, letter_N: Tensor, node_N: Tensor) -> Tensor:
        """Return the nodes after one more letter."""
        key_N = node_N * self.letters + letter_N
        at_N = torch.searchsorted(self.key_E, key_N)
        return torch.where(self.key_E[at_N] == key_N, self.next_E[at_N], _Spelling.LOST)


class _Spelling:
    """Maps letters to nodes: NONE between words, LOST for spellings that begin no known word.

    A letter is a byte of UTF-8, since a token of a byte-level vocabulary may end within a character.
    """

    NONE, LOST = 0, 1

    def __init__(self, letters: Sequence[int]) -> None:
        self.ids = {letter: i for i, letter in enumerate(letters)}

    def of_pieces(self, pieces: Sequence[bytes]) -> Tensor:
        """Return the letters (V, C) of each token without its leading spaces, -1 after the last."""
        rows = [[self.ids[letter] for letter in piece.lstrip(b" ")] for piece in pieces]
        return pad_tokens(rows, -1)[0]

    def table(self, words: dict[str, int], unknown: int) -> _Table:
        """Build the trie of all words."""
        arcs: dict[int, int] = {}
        ends = [unknown, unknown]
        for word, i in words.items():
            node = self.NONE
            for letter in word.encode():
                key = node * len(self.ids) + self.ids[letter]
                node = arcs.setdefault(key, len(ends))
                if node == len(ends):
                    ends.append(unknown)
            ends[node] = i
        arcs[len(ends) * len(self.ids)] = self.LOST  # greater than any key, so that a look-up never runs off the end
        keys = sorted(arcs)
        return _Table(len(self.ids), torch.tensor(keys), torch.tensor([arcs[k] for k in keys]), torch.tensor(ends))


def _read(path: Path, keep: Callable[[str], bool]) -> tuple[BackOff, dict[str, int], int]:
    """Return the automaton of a file, its words' numbers, and how many words it has.

    If <unk> is missing, it gets the probability of the rarest word.
    """
    arpa = read_arpa(path, keep)
    ids = {word: i for i, word in enumerate(arpa.words)}
    if END not in ids:
        raise ConfigError(f"{printable(path)}: {END} is not among its 1-grams, so no text could end")
    orders = arpa.orders
    if UNKNOWN not in ids:
        ids[UNKNOWN] = ids.pop("<UNK>", len(ids))
    if ids[UNKNOWN] == len(arpa.words):
        orders = [_with_unknown(orders[0], ids), *orders[1:]]
    try:
        return back_off(orders, len(ids)), ids, arpa.size
    except ValueError as e:
        raise ConfigError(f"{printable(path)}:{e}: this n-gram is listed twice") from None


def _with_unknown(first: Order, ids: dict[str, int]) -> Order:
    """Return the 1-grams with <unk> added."""
    rarest = first.log_prob_E[first.words_Ek[:, 0] != ids.get(BEGIN)].min()
    return Order(
        np.append(first.words_Ek, [[ids[UNKNOWN]]], 0).astype(np.int32),
        np.append(first.log_prob_E, rarest),
        np.append(first.back_off_E, np.float32(0)),
        np.append(first.line_E, np.int32(0)),
    )


def _begin(model: BackOff, ids: dict[str, int]) -> int:
    """Return the context at the start of a text."""
    if BEGIN not in ids:
        return ROOT
    _, next_N = model.score(torch.tensor([ids[BEGIN]]), torch.tensor([ROOT]))
    return int(next_N)

"""Training n-gram language models on texts, over a speech model's tokens or over words, for its beam search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from asr.checkpoint import load_tokenizer_of
from asr.decode.ngram import symbols
from asr.errors import DataError, printable
from asr.files import make_folder
from asr.lm.kneser_ney import BEGIN, END, UNKNOWN, estimate, write_arpa
from asr.pretrained import find_model
from asr.scoring.formats import open_texts
from asr.text import normalizer
from asr.tokenizer import Tokenizer

Unit = Literal["token", "word"]


class Made(NamedTuple):
    """What an n-gram model was made from and holds: texts, and n-grams by order."""

    texts: int
    ngrams: tuple[int, ...]


def train_ngrams(files: Sequence[Path], model: Path, order: int, out: Path, unit: Unit = "token") -> Made:
    """Estimate an n-gram model on texts, normalised as the model's texts are, and write it as an ARPA file.

    files: anything that `asr score` reads, where plain text has one text per line; empty texts are skipped.  Raises
    DataError if there is no text.
    """
    config, tokenizer = load_tokenizer_of(find_model(model))
    texts = list(texts_in(files, config.normalizer))
    cut, names = _tokens(tokenizer) if unit == "token" else _words(texts)
    make_folder(out.parent)
    try:
        orders = estimate(map(cut, texts), len(names), order)
    except DataError as e:
        raise DataError(f"{', '.join(printable(file) for file in files)}: {e}") from None
    write_arpa(out, orders, names)
    return Made(len(texts), tuple(len(o.prob_E) for o in orders))


def texts_in(files: Iterable[Path], name: str) -> Iterator[str]:
    """Yield the texts of files after the normaliser `name`; empty ones are skipped."""
    chain = cache(normalizer)
    for file in files:
        for row in open_texts(file, form="lines").rows():
            if text := chain(name, row.language)(row.text).strip():
                yield text


def _tokens(tokenizer: Tokenizer) -> tuple[Callable[[str], list[int]], list[str]]:
    """Return how to turn texts into token numbers, and the tokens' names."""
    names = symbols(tokenizer)
    spoken = [i for i in range(len(names)) if i not in {*tokenizer.suppressed_ids, tokenizer.eos_id}]
    number = {token: UNKNOWN + 1 + n for n, token in enumerate(spoken)}
    called = [*_special(), *(names[i] for i in spoken)]
    return lambda text: [number.get(i, UNKNOWN) for i in tokenizer.encode(text)], called


def _words(texts: Sequence[str]) -> tuple[Callable[[str], list[int]], list[str]]:
    """Return how to turn texts into word numbers, and the words, which are what stands between spaces."""
    special = _special()
    words = sorted({word for text in texts for word in text.split()} - set(special))
    number = {word: UNKNOWN + 1 + n for n, word in enumerate(words)}
    return lambda text: [number.get(word, UNKNOWN) for word in text.split()], [*special, *words]


def _special() -> list[str]:
    return [name for _, name in sorted({BEGIN: "<s>", END: "</s>", UNKNOWN: "<unk>"}.items())]

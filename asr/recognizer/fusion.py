"""What shallow fusion adds to the score of a text: phrase lists, and the language model, which is loaded here."""

from __future__ import annotations

from asr.checkpoint import load_language_model
from asr.config import DecodeConfig
from asr.decode.ngram import read_ngrams
from asr.decode.phrases import PhraseScorer
from asr.decode.search import Scorer, Weighted
from asr.errors import ConfigError, printable
from asr.tokenizer import Tokenizer


def open_language_model(options: DecodeConfig, tokenizer: Tokenizer) -> Scorer | None:
    """Open the language model of the options: a folder of `asr lm train`, or a file of n-grams; None if they name none.

    Raises AsrError, one line, for anything else and for a model with another vocabulary.
    """
    if options.lm is None:
        return None
    if not options.lm.is_dir():
        return read_ngrams(options.lm, tokenizer, options.lm_unit, options.lm_unknown_penalty)
    if options.lm_unit == "word":
        raise ConfigError(f"{printable(options.lm)}: this is a language model of tokens; leave out lm_unit: word")
    _, model, own = load_language_model(options.lm)
    tokens = list(range(tokenizer.vocab_size))
    if own.vocab_size != tokenizer.vocab_size or own.pieces(tokens) != tokenizer.pieces(tokens):
        raise ConfigError(
            f"{printable(options.lm)}: this language model was trained for other tokens than this model's"
        )
    return model


def fused(options: DecodeConfig, phrases: PhraseScorer | None, lm: Scorer | None, *, pointed: bool) -> list[Weighted]:
    """Return the scorers that are added to a model's own, each with its weight; pointed: the model has a pointer."""
    scorers = []
    if phrases is not None:
        usual = 0.0 if pointed else 1.0  # with both, errors rise above those of either alone (docs/methods.md)
        given = options.phrase_bonus
        scorers.append(Weighted("phrases", phrases, usual if given is None else given, phrases.rise))
    if lm is not None:
        scorers.append(Weighted("lm", lm, options.lm_weight))
    return scorers

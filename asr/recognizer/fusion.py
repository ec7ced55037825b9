"""The language model that the options of the search name."""

from __future__ import annotations

from asr.checkpoint import load_language_model
from asr.config import DecodeConfig
from asr.decode.ngram import read_ngrams
from asr.decode.search import Scorer
from asr.errors import ConfigError, printable
from asr.tokenizer import Tokenizer


def open_language_model(options: DecodeConfig, tokenizer: Tokenizer) -> Scorer | None:
    """A folder is a language model trained here, a file n-grams; None for none.

    Raises AsrError, one line, for what is neither or does not fit the vocabulary.
    """
    if options.lm is None:
        return None
    if not options.lm.is_dir():
        return read_ngrams(options.lm, tokenizer, options.lm_unit, options.lm_unknown_penalty)
    if options.lm_unit == "word":
        raise ConfigError(f"{printable(options.lm)}: a language model of tokens; leave out lm_unit: word")
    _, model, own = load_language_model(options.lm)
    tokens = list(range(tokenizer.vocab_size))
    if own.vocab_size != tokenizer.vocab_size or own.pieces(tokens) != tokenizer.pieces(tokens):
        raise ConfigError(
            f"{printable(options.lm)}: this language model was trained for other tokens than this model's"
        )
    return model

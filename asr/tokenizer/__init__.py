"""Tokenizers between text and token ids: characters, SentencePiece, and the vocabularies of Whisper and Speech2Text.

Vocabularies trained here begin with `<blank>` 0, `<s>` 1, `</s>` 2, `<unk>` 3, language tokens `<|xx|>` and task
tokens `<|transcribe|>`, `<|translate:xx|>`.
Speech2Text normalises texts by its SentencePiece model; the others leave case, punctuation and Unicode form alone,
which are the task of `asr.text`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asr.tokenizer.base import Tokenizer
from asr.tokenizer.speech2text import Speech2TextTokenizer
from asr.tokenizer.trained import CharacterTokenizer, SentencePieceTokenizer
from asr.tokenizer.whisper import WhisperTokenizer

__all__ = [
    "CharacterTokenizer",
    "SentencePieceTokenizer",
    "Speech2TextTokenizer",
    "Tokenizer",
    "WhisperTokenizer",
    "load_tokenizer",
]


def load_tokenizer(folder: str | Path, kind: str) -> Tokenizer:
    """Load the tokenizer of a model folder; kind is "character", "unigram", "bpe", "whisper" or "speech2text"."""
    loaders: dict[str, Callable[[Path], Tokenizer]] = {
        "character": CharacterTokenizer.load,
        "unigram": SentencePieceTokenizer.load,
        "bpe": SentencePieceTokenizer.load,
        "whisper": WhisperTokenizer.load,
        "speech2text": Speech2TextTokenizer.load,
    }
    return loaders[kind](Path(folder))

"""Whisper's byte-level BPE vocabulary, read from a Hugging Face `tokenizer.json`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from asr.errors import AsrError, CheckpointError
from asr.files import write_whole
from asr.files.small import first_problem, one_line, read_json, read_small
from asr.tasks import TRANSCRIBE, TRANSLATE, chosen
from asr.tokenizer.base import OwnFile, language_id

LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
TIME_STAMPS = 1501  # 0.00 to 30.00 s in steps of 0.02 s, right after <|notimestamps|>
MULTILINGUAL_SIZE = 51865  # smaller vocabularies are English-only
# Byte-level BPE writes each byte as a printable character: Latin-1 where printable, the rest from U+0100 in order.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
BYTES = {chr(b): b for b in _PRINTABLE} | {chr(0x100 + i): b for i, b in enumerate(_OTHERS)}


class WhisperTokenizer:
    """Byte-level BPE of Whisper (Radford et al. 2023): the English-only, multilingual and v3 layouts.

    Special tokens are found by name. Texts get a leading space, as in Whisper's training, and lose it in decoding.
    Whisper has no CTC blank; its no-speech token, which search suppresses anyway, serves as one, so that a CTC head
    can share the vocabulary.
    """

    FILE = "tokenizer.json"
    OPTIONS_FILE = "whisper.json"

    def __init__(
        self,
        source: str | bytes,
        *,
        vocab_size: int | None = None,
        multilingual: bool | None = None,
        suppressed_ids: Sequence[int] = (),
        suppressed_first_ids: Sequence[int] = (),
    ) -> None:
        """Build it from the content of a Hugging Face `tokenizer.json`; raise ValueError if it is not Whisper's.

        `vocab_size` is the number of rows of the model's embedding; by default the vocabulary ends with the time
        stamps, which many files omit. `multilingual` is by default inferred from that size.
        """
        try:
            file = _WhisperFile.model_validate_json(source)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error
        self._source = source if isinstance(source, bytes) else source.encode()
        self._bpe = _byte_level_bpe(file.model)
        self.special_ids = {token.content: token.id for token in sorted(file.added_tokens, key=lambda t: t.id)}
        self._text_ids = frozenset(file.model.vocab.values()) - frozenset(self.special_ids.values())
        self.start_id = self._special("<|startoftranscript|>")
        self.eos_id = self._special("<|endoftext|>")
        self.blank_id = self._special("<|nospeech|>", "<|nocaptions|>")
        self.no_speech_id: int | None = self.blank_id
        self.previous_id: int | None = self.special_ids.get("<|startofprev|>")
        self.no_time_stamps_id = self._special("<|notimestamps|>")
        self.vocab_size = vocab_size or self.no_time_stamps_id + 1 + TIME_STAMPS
        self.multilingual = self.vocab_size >= MULTILINGUAL_SIZE if multilingual is None else multilingual
        self.language_ids = _language_ids(self.special_ids) if self.multilingual else {}
        self.languages = tuple(self.language_ids)
        names = {TRANSCRIBE: TRANSCRIBE, f"{TRANSLATE}:en": TRANSLATE} if self.multilingual else {}
        self._task_ids = {task: self._special(f"<|{name}|>") for task, name in names.items()}
        self.tasks = tuple(self._task_ids) or (TRANSCRIBE,)
        self.suppressed_ids = tuple(suppressed_ids)
        self.suppressed_first_ids = tuple(suppressed_first_ids)
        ids = {*self._text_ids, *self.special_ids.values(), *self.suppressed_ids, *self.suppressed_first_ids}
        if min(ids) < 0 or max(ids) >= self.vocab_size:
            raise ValueError(f"has ids outside the vocabulary of {self.vocab_size}")
        self._space_ids = self._bpe.encode(" ").ids

    def prefix(self, language: str | None = None, task: str | None = None) -> list[int]:
        """Return the start token, language and task if the model is multilingual, and the token for no time stamps."""
        if self.multilingual:
            task_id = self._task_ids[chosen(task, self.tasks)]
            return [self.start_id, language_id(language, self.language_ids), task_id, self.no_time_stamps_id]
        if language not in (None, "en") or task not in (None, TRANSCRIBE):
            wanted = f"language {language!r}" if language not in (None, "en") else f"task {task!r}"
            raise AsrError(f"this model transcribes English only; for {wanted} choose another, such as whisper-small")
        return [self.start_id, self.no_time_stamps_id]

    @property
    def names(self) -> list[str]:
        known = {id: name for name, id in self.special_ids.items()}
        known |= {id: _named(self._bpe.id_to_token(id) or "") for id in self._text_ids}
        return [known.get(i) or f"<{i}>" for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._bpe.encode(f" {text.strip()}").ids
        # If no piece begins with a space (e.g. in Chinese), the space would be a token, which Whisper never writes.
        return ids[1:] if ids[:1] == self._space_ids else ids

    def encode_as_is(self, text: str) -> list[int]:
        """Return the ids of a fragment of text, without adding or removing a leading space."""
        return list(self._bpe.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return self._bpe.decode([i for i in ids if i in self._text_ids]).strip()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        texts = [utf8.decode(self.spelled(i)) for i in ids]
        return [*texts[:-1], texts[-1] + utf8.decode(b"", final=True)] if texts else []

    def spelled(self, id: int) -> bytes:
        return _bytes(self._bpe.id_to_token(id) or "") if id in self._text_ids else b""

    def save(self, folder: Path) -> None:
        options = _WhisperOptions(
            vocab_size=self.vocab_size,
            multilingual=self.multilingual,
            suppressed_ids=self.suppressed_ids,
            suppressed_first_ids=self.suppressed_first_ids,
        )
        write_whole(Path(folder) / self.OPTIONS_FILE, options.model_dump_json())
        write_whole(Path(folder) / self.FILE, self._source)

    @classmethod
    def load(cls, folder: Path) -> WhisperTokenizer:
        """Read `tokenizer.json` and `whisper.json`; raise CheckpointError if one is missing or damaged."""
        options = read_json(_WhisperOptions, Path(folder) / cls.OPTIONS_FILE)
        return cls.from_file(Path(folder) / cls.FILE, **options.model_dump())

    @classmethod
    def from_file(cls, path: Path, **options: Any) -> WhisperTokenizer:
        """Read any `tokenizer.json`, with the constructor's options; CheckpointError names the file."""
        try:
            return cls(read_small(path), **options)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def _special(self, *names: str) -> int:
        for name in names:
            if name in self.special_ids:
                return self.special_ids[name]
        raise ValueError(f"is not Whisper's: it has no {names[0]}")


class _WhisperOptions(OwnFile):
    vocab_size: PositiveInt
    multilingual: bool
    suppressed_ids: tuple[int, ...]
    suppressed_first_ids: tuple[int, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Bpe(_Part):
    type: Literal["BPE"] = "BPE"
    vocab: dict[str, int]
    merges: list[str] | list[tuple[str, str]]


class _AddedToken(_Part):
    id: int
    content: str


class _WhisperFile(_Part):
    model: _Bpe
    added_tokens: list[_AddedToken]


def _language_ids(special_ids: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of languages by code.

    English-only files list them, too, but their models were never trained with them.
    """
    codes = {"iw": "he"}  # the first files use the old code for Hebrew
    matches = [(LANGUAGE.fullmatch(name), i) for name, i in special_ids.items()]
    return {codes.get(match[1], match[1]): i for match, i in matches if match}


def _byte_level_bpe(model: _Bpe) -> tokenizers.Tokenizer:
    """Build the BPE from vocabulary and merges only: without added tokens, no text can spell a special token."""
    try:
        merges = [pair if isinstance(pair, tuple) else _pair(pair) for pair in model.merges]
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE(model.vocab, merges))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"its vocabulary and merges do not fit: {one_line(str(error))}") from error
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    return bpe


def _bytes(token: str) -> bytes:
    """Return the bytes of a byte-level BPE token; a token in any other form stands for its own UTF-8."""
    return bytes(BYTES[c] for c in token) if BYTES.keys() >= set(token) else token.encode()


def _named(token: str) -> str:
    """Return the text of a token, or its bytes in hexadecimal if they are not valid UTF-8."""
    held = _bytes(token)
    try:
        return held.decode()
    except UnicodeDecodeError:
        return f"<{held.hex(' ')}>"


def _pair(line: str) -> tuple[str, str]:
    left, right = line.split(" ")
    return left, right

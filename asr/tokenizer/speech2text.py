"""The vocabulary of fairseq's Speech2Text as published on Hugging Face: SentencePiece pieces, numbered by a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from pydantic import Field, TypeAdapter, ValidationError

from asr.errors import CheckpointError
from asr.files import write_whole
from asr.files.small import first_problem, read_json, read_small
from asr.tasks import LANGUAGE_CODE, TRANSCRIBE, chosen
from asr.tokenizer.base import OwnFile, language_id
from asr.tokenizer.trained import SPACE_MARK

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
LANGUAGE = re.compile(f"<lang:({LANGUAGE_CODE})>")
MOST_PIECES = 1_000_000
MOST_UNKNOWN_SHARE = 0.01  # of a list's pieces: fairseq pads some lists with made-up words
_Vocabulary = TypeAdapter(dict[str, int])


class Speech2TextTokenizer:
    """SentencePiece pieces with fairseq's numbering (Wang et al. 2020): `</s>` both begins and ends a text.

    Multilingual models of MuST-C select the language of the text by a token `<lang:xx>` after it.  With `upper_case`
    the pieces are in lower case and texts are written in capitals.  The SentencePiece model normalises the text
    (usually by NFKC).  The vocabulary has no CTC blank; `<pad>`, which is never produced, serves as one.
    """

    FILE = "sentencepiece.bpe.model"
    LIST_FILE = "vocab.json"
    OPTIONS_FILE = "speech2text.json"
    suppressed_first_ids: tuple[int, ...] = ()
    no_speech_id: int | None = None
    previous_id: int | None = None
    tasks: tuple[str, ...] = (TRANSCRIBE,)

    def __init__(
        self, model: bytes, pieces: str | bytes, *, vocab_size: int | None = None, upper_case: bool = False
    ) -> None:
        """Build it from a SentencePiece model and the JSON of its pieces' ids; raise ValueError if they do not match.

        `vocab_size` is the number of rows of the model's embedding; by default that of the list.
        """
        self._model, self._pieces = model, pieces if isinstance(pieces, bytes) else pieces.encode()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._ids = _Vocabulary.validate_json(self._pieces, strict=True)
            self._processor.LoadFromSerializedProto(model)
        except ValidationError as error:
            raise ValueError(f"{self.LIST_FILE}: {first_problem(error)}") from error
        except RuntimeError as error:
            raise ValueError(f"{self.FILE} is not a SentencePiece model") from error
        self.vocab_size = vocab_size or len(self._ids)
        self.upper_case = upper_case
        ids = self._ids.values()
        if self.vocab_size > MOST_PIECES or len(set(ids)) != len(ids) or not all(0 <= i < self.vocab_size for i in ids):
            raise ValueError(f"{self.LIST_FILE} has ids outside the vocabulary of {self.vocab_size}, or twice")
        missing = [piece for piece in SPECIALS if piece not in self._ids]
        if missing:
            raise ValueError(f"{self.LIST_FILE} is not that of Speech2Text: it has no {', '.join(missing)}")
        self.start_id = self.eos_id = self._ids["</s>"]
        self.blank_id, self.unknown_id = self._ids["<pad>"], self._ids["<unk>"]
        languages = [(LANGUAGE.fullmatch(piece), i) for piece, i in self._ids.items()]
        self.language_ids = {match[1]: i for match, i in languages if match}
        self.languages = tuple(self.language_ids)
        self._text = self._text_pieces()
        self.suppressed_ids = tuple(i for i in range(self.vocab_size) if i not in self._text and i != self.eos_id)

    def _text_pieces(self) -> dict[int, str]:
        """Return the pieces that texts consist of, by id."""
        special = {*(self._ids[piece] for piece in SPECIALS), *self.language_ids.values()}
        listed = {i: piece for piece, i in self._ids.items() if i not in special}
        unknown = self._processor.unk_id()
        text = {i: piece for i, piece in listed.items() if self._processor.piece_to_id(piece) != unknown}
        if not text or len(listed) - len(text) > MOST_UNKNOWN_SHARE * len(listed):
            strange = f"{len(listed) - len(text)} of {len(listed)} pieces are not in {self.FILE}"
            raise ValueError(f"{self.LIST_FILE}: {strange}")
        return text

    def prefix(self, language: str | None = None, task: str | None = None) -> list[int]:
        """Return `</s>`, then the token of the text's language (not the speech's) if the vocabulary has languages.

        Speech in another language is translated into it; `transcribe` is the only task.
        """
        chosen(task, self.tasks)
        if not self.languages:
            return [self.start_id]
        return [self.start_id, language_id(language, self.language_ids)]

    @property
    def names(self) -> list[str]:
        known = {id: piece for piece, id in self._ids.items()}
        return [known.get(i, f"<{i}>") for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        pieces = self._processor.encode(text.lower() if self.upper_case else text, out_type=str)
        ids = (self._ids.get(piece, self.unknown_id) for piece in pieces)
        # Language tokens are pieces of the SentencePiece model, so a text could spell them.
        return [i if i in self._text else self.unknown_id for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        text = str(self._processor.decode([self._text[i] for i in ids if i in self._text]))
        return text.upper() if self.upper_case else text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        texts = [self._text.get(i, "").replace(SPACE_MARK, " ") for i in ids]
        return [text.upper() for text in texts] if self.upper_case else texts

    def spelled(self, id: int) -> bytes:
        return self.pieces([id])[0].encode()

    def save(self, folder: Path) -> None:
        options = _Speech2TextOptions(vocab_size=self.vocab_size, upper_case=self.upper_case)
        write_whole(Path(folder) / self.OPTIONS_FILE, options.model_dump_json())
        write_whole(Path(folder) / self.LIST_FILE, self._pieces)
        write_whole(Path(folder) / self.FILE, self._model)

    @classmethod
    def load(cls, folder: Path) -> Speech2TextTokenizer:
        """Read a model folder's three files; raise CheckpointError if one is missing or damaged."""
        return cls.from_folder(folder, **read_json(_Speech2TextOptions, Path(folder) / cls.OPTIONS_FILE).model_dump())

    @classmethod
    def from_folder(cls, folder: Path, **options: Any) -> Speech2TextTokenizer:
        """Read another project's SentencePiece model and list of pieces; CheckpointError names the folder."""
        folder = Path(folder)
        try:
            return cls(read_small(folder / cls.FILE), read_small(folder / cls.LIST_FILE), **options)
        except ValueError as error:
            raise CheckpointError(f"{folder}: {error}") from error


class _Speech2TextOptions(OwnFile):
    vocab_size: int = Field(gt=0, le=MOST_PIECES)
    upper_case: bool

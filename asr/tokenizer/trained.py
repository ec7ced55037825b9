"""Vocabularies trained by this project: characters and SentencePiece pieces."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import sentencepiece
from pydantic import Field

from asr.errors import CheckpointError, ConfigError, DataError, printable
from asr.files import write_whole
from asr.files.small import one_line, read_json, read_small
from asr.tasks import LANGUAGE_CODE, TASK, TRANSCRIBE, chosen
from asr.tokenizer.base import OwnFile, language_id

SPECIALS = ("<blank>", "<s>", "</s>", "<unk>")
SPACE_MARK = "\u2581"  # SentencePiece's symbol for a space


class _Vocabulary:
    """The common layout of vocabularies trained here: four special tokens, language tokens, task tokens, text tokens.

    Without task tokens the only task is `transcribe`.
    """

    blank_id = 0
    start_id = 1
    eos_id = 2
    unknown_id = 3
    no_speech_id: int | None = None
    previous_id: int | None = None
    suppressed_first_ids: tuple[int, ...] = ()

    def __init__(self, languages: Sequence[str], tasks: Sequence[str]) -> None:
        self.languages = tuple(languages)
        self.tasks = tuple(tasks) or (TRANSCRIBE,)
        self.language_ids = {code: len(SPECIALS) + i for i, code in enumerate(self.languages)}
        first_task_id = len(SPECIALS) + len(self.languages)
        self.task_ids = {task: first_task_id + i for i, task in enumerate(tasks)}
        self.first_text_id = first_task_id + len(self.task_ids)
        told = *self.language_ids.values(), *self.task_ids.values()
        self.suppressed_ids = (self.blank_id, self.start_id, self.unknown_id, *told)

    def prefix(self, language: str | None = None, task: str | None = None) -> list[int]:
        """Return `<s>`, then the tokens of the speech's language and of the task, if the vocabulary has such tokens.

        A vocabulary without language tokens accepts any language; one with a single language uses it by default.
        """
        start, task = [self.start_id], chosen(task, self.tasks)
        if self.languages:
            only = self.languages[0] if len(self.languages) == 1 else None
            start.append(language_id(only if language is None else language, self.language_ids))
        return [*start, self.task_ids[task]] if self.task_ids else start


class CharacterTokenizer(_Vocabulary):
    """One token for each character (code point) of the training texts, in code point order."""

    FILE = "characters.json"

    def __init__(self, characters: Sequence[str], languages: Sequence[str] = (), tasks: Sequence[str] = ()) -> None:
        super().__init__(languages, tasks)
        self.characters = tuple(characters)
        self.vocab_size = self.first_text_id + len(self.characters)
        self._ids = {character: self.first_text_id + i for i, character in enumerate(self.characters)}

    @classmethod
    def train(
        cls, texts: Iterable[str], languages: Sequence[str] = (), tasks: Sequence[str] = ()
    ) -> CharacterTokenizer:
        """Collect the characters; raise DataError if there are none, ConfigError for a bad language code or task."""
        _check_names(languages, tasks)
        characters = sorted(set().union(*texts))
        if not characters:
            raise DataError("there is no text to train the tokenizer on")
        return cls(characters, languages, tasks)

    @property
    def names(self) -> list[str]:
        return [*SPECIALS, *_controls(self.languages, tuple(self.task_ids)), *self.characters]

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(character, self.unknown_id) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        first, end = self.first_text_id, self.vocab_size
        return "".join(self.characters[i - first] for i in ids if first <= i < end)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.decode([i]) for i in ids]

    def spelled(self, id: int) -> bytes:
        return self.pieces([id])[0].encode()

    def save(self, folder: Path) -> None:
        tasks = tuple(self.task_ids)
        file = _CharacterFile(languages=self.languages, tasks=tasks, characters=self.characters)
        write_whole(Path(folder) / self.FILE, file.model_dump_json())

    @classmethod
    def load(cls, folder: Path) -> CharacterTokenizer:
        """Read `characters.json`; raise CheckpointError if it is missing, damaged or something else."""
        path = Path(folder) / cls.FILE
        file = read_json(_CharacterFile, path)
        for what in (file.characters, file.languages, file.tasks):
            if len(set(what)) != len(what):
                raise CheckpointError(f"{path}: a character, language or task occurs twice")
        return cls(file.characters, file.languages, file.tasks)


_EVERY_TRAINING: dict[str, Any] = {
    **{f"{name}_id": i for i, name in enumerate(("pad", "bos", "eos", "unk"))},
    **{f"{name}_piece": piece for name, piece in zip(("pad", "bos", "eos", "unk"), SPECIALS, strict=True)},
    "normalization_rule_name": "identity",
    "character_coverage": 1.0,
    "byte_fallback": False,
    "shuffle_input_sentence": False,
    "num_threads": 1,
    "minloglevel": 2,
}


class SentencePieceTokenizer(_Vocabulary):
    """Sub-word pieces by a unigram language model (Kudo 2018) or byte-pair encoding (Sennrich et al. 2016).

    White space becomes single spaces between words; otherwise the text is not changed.
    """

    FILE = "sentencepiece.model"

    def __init__(self, model: bytes) -> None:
        """Build it from a SentencePiece model with this project's layout; raise ValueError for any other model."""
        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError("is not a SentencePiece model") from error
        size = processor.get_piece_size()
        names = [processor.id_to_piece(i)[2:-2] for i in range(4, size) if processor.is_control(i)]
        tasks = [name for name in names if re.fullmatch(TASK, name)]
        languages = [name for name in names if name not in tasks]
        first = [*SPECIALS, *_controls(languages, tasks)]
        if bad := next((name for name in languages if not re.fullmatch(LANGUAGE_CODE, name)), None):
            raise ValueError(f"{printable(bad)} is neither a language nor a task")
        if [processor.id_to_piece(i) for i in range(min(size, len(first)))] != first:
            raise ValueError(f"its first pieces are not {', '.join(SPECIALS)}, the languages and the tasks")
        super().__init__(languages, tasks)
        self.vocab_size = size
        self._model = model
        self._processor = processor

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        languages: Sequence[str] = (),
        tasks: Sequence[str] = (),
        *,
        kind: Literal["unigram", "bpe"] = "unigram",
        vocab_size: int = 1000,
    ) -> SentencePieceTokenizer:
        """Train on the texts as separate sentences; the same texts give the same model, byte for byte.

        `vocab_size` counts all tokens, special ones included. Raises ConfigError, with the largest or smallest size
        that the texts allow, and DataError if there is no text.
        """
        _check_names(languages, tasks)
        sentences = [sentence for sentence in (" ".join(text.split()) for text in texts) if sentence]
        if not sentences:
            raise DataError("there is no text to train the tokenizer on")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type=kind,
                # With a size below the number of specials the library would not report how many pieces it needs.
                vocab_size=max(vocab_size, len(SPECIALS) + len(languages) + len(tasks)),
                control_symbols=_controls(languages, tasks),
                # Longer sentences would be skipped silently; the library rejects a limit below 10.
                max_sentence_length=max(10, *(len(sentence.encode()) + 1 for sentence in sentences)),
                **_EVERY_TRAINING,
            )
        except RuntimeError as error:
            raise ConfigError(_explain_training(str(error), kind, vocab_size)) from error
        return cls(model.getvalue())

    @property
    def names(self) -> list[str]:
        return [self._processor.id_to_piece(i) for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        return list(self._processor.encode(" ".join(text.split())))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode([i for i in ids if self.first_text_id <= i < self.vocab_size]))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        known = (i if self.first_text_id <= i < self.vocab_size else None for i in ids)
        return ["" if i is None else str(self._processor.id_to_piece(i)).replace(SPACE_MARK, " ") for i in known]

    def spelled(self, id: int) -> bytes:
        return self.pieces([id])[0].encode()

    def save(self, folder: Path) -> None:
        write_whole(Path(folder) / self.FILE, self._model)

    @classmethod
    def load(cls, folder: Path) -> SentencePieceTokenizer:
        """Read `sentencepiece.model`; raise CheckpointError if it is missing, damaged or of another layout."""
        path = Path(folder) / cls.FILE
        try:
            return cls(read_small(path))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error


class _CharacterFile(OwnFile):
    languages: tuple[Annotated[str, Field(pattern=f"^{LANGUAGE_CODE}$")], ...]
    tasks: tuple[Annotated[str, Field(pattern=f"^({TASK})$")], ...] = ()
    characters: tuple[Annotated[str, Field(min_length=1, max_length=1)], ...] = Field(min_length=1)


def _controls(languages: Sequence[str], tasks: Sequence[str]) -> list[str]:
    return [f"<|{name}|>" for name in (*languages, *tasks)]


def _check_names(languages: Sequence[str], tasks: Sequence[str]) -> None:
    for code in languages:
        if not re.fullmatch(LANGUAGE_CODE, code):
            raise ConfigError(f"{code!r} is not a language code such as en or pt-BR")
    for task in tasks:
        if not re.fullmatch(TASK, task):
            raise ConfigError(f"{task!r} is not a task such as transcribe or translate:en")
    for what, names in (("language", languages), ("task", tasks)):
        if len(set(names)) != len(names):
            raise ConfigError(f"a {what} occurs twice: {', '.join(names)}")


def _explain_training(message: str, kind: str, vocab_size: int) -> str:
    what = f"a {kind} vocabulary of {vocab_size}"
    if largest := re.search(r"too high .*<= (\d+)", message):
        return f"{what} is too large for the training texts: at most {largest[1]}"
    if smallest := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"{what} is too small for the characters of the training texts: at least {smallest[1]}"
    return f"{what} cannot be trained: {one_line(message)}"

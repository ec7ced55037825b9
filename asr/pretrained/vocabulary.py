"""Convert Whisper's vocabulary from its published forms to the one that our tokenizer reads: `tokenizer.json`."""

from __future__ import annotations

import base64
import binascii
import json
import re
from importlib.util import find_spec
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from asr.errors import CheckpointError
from asr.files.small import first_problem, read_small
from asr.tasks import LANGUAGES
from asr.tokenizer import WhisperTokenizer
from asr.tokenizer.whisper import BYTES, MULTILINGUAL_SIZE, TIME_STAMPS

JSON, PIECES, MERGES, ADDED = "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"
TIKTOKEN = {False: "gpt2.tiktoken", True: "multilingual.tiktoken"}  # by whether it is multilingual
RANKS = {False: 50_256, True: 50_257}
LONGEST_PIECE = 512
BEFORE_LANGUAGES = ("<|endoftext|>", "<|startoftranscript|>")
AFTER_LANGUAGES = (
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)
# Non-speech marks of subtitles: brackets, notes, speaker marks.  Whisper learnt them from its training texts.
MARKS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"),
    *("♪♪", "♪♪♪"),
)
NOTES = "♩♪♫♬♭♮♯"  # several tokens each, of which the first is suppressed
_Ids = TypeAdapter(dict[str, int])


def hugging_face_vocabulary(folder: Path) -> tuple[Path, bytes]:
    """Return the file to name in errors and the content of `tokenizer.json`, converted from older files if missing."""
    if (folder / JSON).is_file() or not (folder / PIECES).is_file():
        return folder / JSON, read_small(folder / JSON)
    pieces, added = _read_ids(folder / PIECES), {}
    if (folder / ADDED).is_file():
        added = _read_ids(folder / ADDED)
    added |= {piece: i for piece, i in pieces.items() if re.fullmatch(r"<\|.*\|>", piece)}
    lines = read_small(folder / MERGES).decode("utf-8", "replace").splitlines()
    merges = [line for number, line in enumerate(lines) if line and not (number == 0 and line.startswith("#version"))]
    return folder / PIECES, _tokenizer_json(pieces, merges, added)


def openai_vocabulary(weights: Path, given: Path | None, vocab_size: int) -> tuple[Path, bytes]:
    """Return the file to name in errors and the content of `tokenizer.json` for OpenAI's weights, which contain none.

    It is read from `given`, by default from a file beside the weights or in OpenAI's installed package.
    """
    path = given or _beside(weights, multilingual=vocab_size >= MULTILINGUAL_SIZE)
    if path.suffix == ".json":
        return path, read_small(path)
    try:
        return path, _from_tiktoken(read_small(path), vocab_size)
    except ValueError as e:
        raise CheckpointError(f"{path}: not the vocabulary of {weights.name}: {e}") from None


def non_speech(tokenizer: WhisperTokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that OpenAI's decoding always suppresses, and those that it suppresses at the beginning."""
    hyphen, apostrophe = (tokenizer.encode_as_is(text)[0] for text in (" -", " '"))  # speech only inside words
    ids = {hyphen, apostrophe}
    for mark in [*MARKS, *NOTES]:
        for pieces in (tokenizer.encode_as_is(mark), tokenizer.encode_as_is(f" {mark}")):
            if len(pieces) == 1 or mark in NOTES:
                ids.add(pieces[0])
    special = {*BEFORE_LANGUAGES, *AFTER_LANGUAGES} - {"<|endoftext|>", "<|notimestamps|>"}
    ids |= {tokenizer.special_ids[name] for name in special if name in tokenizer.special_ids}
    ids.add(tokenizer.blank_id)
    return tuple(sorted(ids)), (*tokenizer.encode_as_is(" "), tokenizer.eos_id)


def _beside(weights: Path, *, multilingual: bool) -> Path:
    name = TIKTOKEN[multilingual]
    places = [weights.parent / JSON, weights.parent / name]
    package = find_spec("whisper")  # finds the package without importing it
    places += [Path(place) / "assets" / name for place in (package and package.submodule_search_locations) or ()]
    for place in places:
        if place.is_file():
            return place
    raise CheckpointError(f"{weights}: its vocabulary is missing; put {name} or {JSON} beside it, or name one")


def _read_ids(path: Path) -> dict[str, int]:
    try:
        return _Ids.validate_json(read_small(path), strict=True)
    except ValidationError as e:
        raise CheckpointError(f"{path}: {first_problem(e)}") from None


def _tokenizer_json(pieces: dict[str, int], merges: list[str], added: dict[str, int]) -> bytes:
    tokens = [{"id": i, "content": content} for content, i in added.items()]
    return json.dumps({"added_tokens": tokens, "model": {"type": "BPE", "vocab": pieces, "merges": merges}}).encode()


def _from_tiktoken(content: bytes, vocab_size: int) -> bytes:
    """Convert lines of a base64 piece and its rank; special tokens follow in the order common to all Whisper models."""
    try:
        lines = [line.split() for line in content.splitlines() if line]
        ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
    except (ValueError, binascii.Error):
        raise ValueError("its lines are not those of a .tiktoken file") from None
    if sorted(ranks.values()) != list(range(len(ranks))) or max(map(len, ranks), default=0) > LONGEST_PIECE:
        raise ValueError("its ranks are not 0, 1, 2, ..., or a piece is far too long")
    multilingual = vocab_size >= MULTILINGUAL_SIZE
    special = len(BEFORE_LANGUAGES) + len(AFTER_LANGUAGES) + TIME_STAMPS
    languages = vocab_size - len(ranks) - special
    if len(ranks) != RANKS[multilingual] or not 99 <= languages <= len(LANGUAGES):
        raise ValueError(f"it has {len(ranks)} pieces, the weights {vocab_size} tokens")
    names = [*BEFORE_LANGUAGES, *(f"<|{code}|>" for code in LANGUAGES[:languages]), *AFTER_LANGUAGES]
    added = {name: len(ranks) + i for i, name in enumerate(names)}
    letter = {byte: character for character, byte in BYTES.items()}
    pieces = {"".join(letter[byte] for byte in piece): rank for piece, rank in ranks.items()}
    merges = []
    for piece, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(piece) > 1:
            merges.append(" ".join("".join(letter[byte] for byte in half) for half in _halves(piece, rank, ranks)))
    return _tokenizer_json(pieces, merges, added)


def _halves(piece: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Return the two pieces that were merged into this one: the result of all earlier merges on its bytes."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
        first = min(pairs)
        if first >= rank:
            break
        at = pairs.index(first)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    if len(parts) != 2 or not all(part in ranks for part in parts):
        raise ValueError(f"no two pieces make up {piece!r}")
    return parts

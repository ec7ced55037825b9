"""Tokenizer files that are damaged or made by other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
from vocabularies import ALL, SPEECH2TEXT, TEXTS, UNIGRAM, whisper_json

from asr.errors import CheckpointError
from asr.tokenizer import load_tokenizer


def broken_whisper(change: str) -> bytes:
    content = json.loads(whisper_json())
    model = content["model"]
    if change == "foreign":
        content["added_tokens"] = [{"id": 0, "content": "[CLS]"}]
    elif change == "type":
        model["type"] = "WordPiece"
    elif change == "merge":
        model["merges"].append("no\x1b such")
    elif change == "key":
        model["vocab"]["a\n\x1bb"] = "c"
    elif change == "negative":
        content["added_tokens"][0]["id"] = -1
    elif change == "id":
        model["vocab"]["zz"] = 100_000
    return json.dumps(content).encode()


PIECES_OF_OTHERS = ["<pad>", "<s>", "</s>", "<unk>"]
BROKEN = {
    ("character", "characters.json"): [
        b"",
        b'{"languages": [], "characters": ["a", "b"',
        b'{"languages": [], "characters": []}',
        b'{"languages": [], "characters": ["ab"]}',
        b'{"languages": [], "characters": ["a", "a"]}',
        b'{"languages": ["english"], "characters": ["a"]}',
        b'{"languages": ["en", "en"], "characters": ["a"]}',
        b'{"languages": [], "characters": ["a"], "more": 1}',
        b'{"characters": [1], "languages": []}',
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
    ("unigram", "sentencepiece.model"): [
        b"",
        b"\x80\x04\x95cposix\nsystem\n",
        UNIGRAM._model[:-5],
        UNIGRAM._model[: len(UNIGRAM._model) // 2],
        b"<html>not found</html>",
    ],
    ("whisper", "tokenizer.json"): [
        b"",
        b"{}",
        whisper_json().encode()[:-10],
        *(broken_whisper(change) for change in ("foreign", "type", "merge", "key", "negative", "id")),
        whisper_json(silence="<|quiet|>").encode(),
    ],
    ("speech2text", "sentencepiece.bpe.model"): [b"", b"<html>", SPEECH2TEXT._model[:-5], UNIGRAM._model],
    ("speech2text", "vocab.json"): [
        b"",
        b"[]",
        SPEECH2TEXT._pieces[:-5],
        SPEECH2TEXT._pieces.replace(b'"<pad>"', b'"[PAD]"'),
        SPEECH2TEXT._pieces.replace(b": 7,", b": 70,"),
        SPEECH2TEXT._pieces.replace(b": 7,", b": 8,"),
        SPEECH2TEXT._pieces.replace(b": 7,", b': "7",'),
        b'{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}',
    ],
    ("speech2text", "speech2text.json"): [
        b"",
        b'{"vocab_size": 50, "upper_case": false}',
        b'{"vocab_size": 1000000000, "upper_case": false}',
        b'{"vocab_size": 70}',
    ],
    ("whisper", "whisper.json"): [
        b"",
        b'{"vocab_size": 3000, "multilingual": true, "suppressed_ids": []}',
        b'{"vocab_size": 10, "multilingual": true, "suppressed_ids": [], "suppressed_first_ids": []}',
        b'{"vocab_size": 3000, "multilingual": true, "suppressed_ids": [3000], "suppressed_first_ids": []}',
        b'{"vocab_size": 3000, "multilingual": true, "suppressed_ids": [], "suppressed_first_ids": [-1]}',
        b'{"vocab_size": "3000", "multilingual": 1, "suppressed_ids": [], "suppressed_first_ids": []}',
    ],
}


def refused(folder: Path, kind: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(folder, kind)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert message.isprintable()
    assert len(message) < len(str(folder)) + 300


@pytest.mark.parametrize(("kind", "name"), BROKEN)
def test_broken_files_are_refused_in_one_line(kind: str, name: str, tmp_path: Path) -> None:
    for content in BROKEN[kind, name]:
        ALL[kind].save(tmp_path)
        load_tokenizer(tmp_path, kind)
        (tmp_path / name).write_bytes(content)
        refused(tmp_path, kind)
    (tmp_path / name).unlink()
    refused(tmp_path, kind)
    (tmp_path / name).mkdir()
    refused(tmp_path, kind)


def test_foreign_sentencepiece_models_are_refused(tmp_path: Path) -> None:
    options = [{}, {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}]
    options.append({**options[1], "pad_piece": "<blank>", "control_symbols": ["<mask>"]})
    for option in options:
        with (tmp_path / "sentencepiece.model").open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(TEXTS), model_writer=file, vocab_size=42, minloglevel=2, **option
            )
        refused(tmp_path, "bpe")

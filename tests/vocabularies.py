"""A small tokenizer of each kind, and files in the formats of other projects."""

from __future__ import annotations

import io
import json

import sentencepiece
from tokenizers.pre_tokenizers import ByteLevel

from asr.tokenizer import (
    CharacterTokenizer,
    SentencePieceTokenizer,
    Speech2TextTokenizer,
    WhisperTokenizer,
)

TEXTS = [
    "please enter your password",
    "the number you dialed is not valid",
    "agent logged off",
    "нажмите один",
    "l'opérateur est occupé",
] * 3
ALPHABET = "".join(sorted(set("".join(TEXTS))))
SPELLED = "<blank><s></s><unk><|en|><|0.00|><|endoftext|><|startoftranscript|><lang:en>"


def whisper_json(
    languages: tuple[str, ...] = ("en", "zh", "haw"), time_stamps: int = 0, silence: str = "<|nospeech|>"
) -> str:
    """Return a file in the layout of Whisper's `tokenizer.json`, with two merges only."""
    pieces = [*sorted(ByteLevel.alphabet()), "Ġt", "he"]
    names = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    names += [
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        silence,
        "<|notimestamps|>",
    ]
    names += [f"<|{i * 0.02:.2f}|>" for i in range(time_stamps)]
    added = [{"id": len(pieces) + i, "content": name, "special": i < 12} for i, name in enumerate(names)]
    model = {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}, "merges": ["Ġ t", "h e"]}
    return json.dumps({"version": "1.0", "added_tokens": added, "model": model})


def speech2text_files(languages: tuple[str, ...] = (), vocab_size: int = 60) -> tuple[bytes, str]:
    """Return a SentencePiece model and the list of its pieces, in fairseq's layout."""
    tokens = [f"<lang:{code}>" for code in languages]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        user_defined_symbols=tokens,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    # Only the ids of this list count; they differ from those of the SentencePiece model.
    names = [processor.id_to_piece(i) for i in range(vocab_size)]
    names = [*names[:4], *reversed(names[4 + len(tokens) :]), *tokens]
    return model.getvalue(), json.dumps({name: i for i, name in enumerate(names)})


CHARACTERS = CharacterTokenizer.train(TEXTS, ["en", "ru"])
UNIGRAM = SentencePieceTokenizer.train(TEXTS, ["en", "ru"], kind="unigram", vocab_size=42)
BPE = SentencePieceTokenizer.train(TEXTS, ["en", "ru"], kind="bpe", vocab_size=80)
WHISPER = WhisperTokenizer(whisper_json(), multilingual=True, suppressed_ids=(1, 2), suppressed_first_ids=(3,))
WHISPER_EN = WhisperTokenizer(whisper_json(), multilingual=False)
SPEECH2TEXT = Speech2TextTokenizer(*speech2text_files(("en", "ru")), vocab_size=70)
ALL = {
    "character": CHARACTERS,
    "unigram": UNIGRAM,
    "bpe": BPE,
    "whisper": WHISPER,
    "whisper.en": WHISPER_EN,
    "speech2text": SPEECH2TEXT,
}
KINDS = {"whisper.en": "whisper"}

"""Our Whisper models as those of the transformers library."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from asr.checkpoint import ModelFolder
from asr.config import DecoderConfig
from asr.errors import AsrError
from asr.pretrained.names import HUGGING_FACE, WHISPER_HUGGING_FACE


def as_theirs(parts: ModelFolder) -> Any:
    """Return a WhisperForConditionalGeneration with the same weights."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    encoder, decoder, tokenizer = parts.config.model.encoder, parts.config.model.decoder, parts.tokenizer
    if not isinstance(decoder, DecoderConfig):
        raise AsrError(f"a decoder of kind {decoder.kind} is not Whisper's")
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_id)
    config = WhisperConfig(
        vocab_size=tokenizer.vocab_size,
        num_mel_bins=parts.config.features.n_mels,
        d_model=encoder.dim,
        encoder_layers=encoder.layers,
        decoder_layers=decoder.layers,
        encoder_attention_heads=encoder.heads,
        decoder_attention_heads=decoder.heads,
        encoder_ffn_dim=encoder.feed_forward,
        decoder_ffn_dim=decoder.feed_forward,
        max_target_positions=decoder.max_length,
        decoder_start_token_id=tokenizer.prefix()[0],
        **ends,
    )
    model = WhisperForConditionalGeneration(config)
    missing, unknown = model.load_state_dict(dict(_their_state(parts)), strict=False)
    if unknown or set(missing) - {WHISPER_HUGGING_FACE.output, WHISPER_HUGGING_FACE.encoder_position}:
        raise AsrError(f"these weights are missing or unknown in transformers' Whisper: {[*missing, *unknown][:3]}")
    return model


def _their_state(parts: ModelFolder) -> Iterator[tuple[str, Tensor]]:
    names, ours = WHISPER_HUGGING_FACE, parts.model.state_dict()
    yield names.embedding, ours["decoder.embedding.weight"]
    yield names.position, ours["decoder.position.weight"]
    sides = {"encoder": len(parts.model.encoder.layers), "decoder": len(parts.model.decoder.layers)}
    pairs = [(f"encoder.subsampling.convs.{i}", conv) for i, conv in enumerate(names.convs)]
    pairs += [(f"{side}.norm", norm) for side, norm in zip(sides, names.norms, strict=True)]
    for side, layers in sides.items():
        for i in range(layers):
            place = getattr(names, side).format(i=i)
            for part, theirs in HUGGING_FACE.items():
                own = part.replace("self_", "attention_" if "residual" in part else "") if side == "encoder" else part
                if f"{side}.layers.{i}.{own}.weight" in ours:
                    pairs.append((f"{side}.layers.{i}.{own}", " ".join(f"{place}.{t}" for t in theirs.split())))
    for own, theirs in pairs:
        several = theirs.split()
        for kind in ("weight", "bias"):
            for name, piece in zip(several, ours[f"{own}.{kind}"].chunk(len(several)), strict=True):
                if not (name.endswith("k_proj") and kind == "bias"):  # Whisper's keys have no bias
                    yield f"{name}.{kind}", piece


def save(model: Any, parts: ModelFolder, folder: Path) -> None:
    """Save the model as a Hugging Face folder, with its tokenizer."""
    from transformers import GenerationConfig

    tokenizer = parts.tokenizer
    model.generation_config = GenerationConfig(
        suppress_tokens=list(tokenizer.suppressed_ids),
        begin_suppress_tokens=list(tokenizer.suppressed_first_ids),
        is_multilingual=bool(tokenizer.languages),
    )
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save(folder)

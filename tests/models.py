"""Small, fast models with seeded, untrained weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_ct2 import INT16, container, variable
from torch import Tensor
from vocabularies import whisper_json

from asr.checkpoint import ModelFolder
from asr.config import DecodeConfig, EncoderConfig, LogMelConfig, ModelConfig, ModelFolderConfig, TokenizerConfig
from asr.model.build import build_model
from asr.model.position import sinusoids
from asr.recognizer import Opened, Recognizer, Source
from asr.tokenizer import CharacterTokenizer, WhisperTokenizer
from asr.transcript import Failure, Transcript

RATE = 8000
WHISPER_POSITIONS = "encoder/position_encodings/encodings"
SMALL_VOCABULARY = WhisperTokenizer(whisper_json()).vocab_size


def small_model(
    languages: Sequence[str] = (),
    *,
    features: Any = None,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    ctc: bool = True,
    **decode: Any,
) -> ModelFolder:
    """Return a model for 8 kHz audio that writes the letters of 'hello world'; `decode` are options of the search.

    decoder: settings of the decoder, by default a small autoregressive one.

    Its weights are large, so that texts depend on the audio and the best token is clearly ahead of the second best.
    """
    torch.manual_seed(6)
    tokenizer = CharacterTokenizer.train(["hello world"], languages)
    sizes = {"layers": 1, "heads": 2, "feed_forward": 32, "dropout": 0.0}
    model = ModelConfig(
        encoder=EncoderConfig(dim=32, **sizes, **(encoder or {})),
        decoder={**({} if "kind" in (decoder or {}) else {**sizes, "tied_output": False}), **(decoder or {})},
        ctc=ctc,
    )
    config = ModelFolderConfig(
        features=features or LogMelConfig(sample_rate_hz=RATE, n_mels=20),
        model=model,
        tokenizer=TokenizerConfig(languages=tuple(languages)),
        decode=DecodeConfig(**decode),
        normalizer="basic",
    )
    built = build_model(config.features, model, tokenizer.vocab_size).eval()
    with torch.no_grad():
        for weight in built.parameters():
            weight.mul_(3.0 if weight.dim() > 1 else 1.0)
    return ModelFolder(config, built, tokenizer)


def noises(*lengths_s: float, seed: int = 1) -> list[Tensor]:
    """Return seeded noise at 8 kHz with the given lengths, each at its own loudness."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(round(s * RATE), generator=draw) * torch.rand(1, generator=draw) for s in lengths_s]


def texts(results: list[Transcript | Failure]) -> list[str]:
    """Return the texts of transcripts; fail the test if one is a Failure."""
    return [r.text if isinstance(r, Transcript) else pytest.fail(r.reason) for r in results]


def of_files(recognizer: Recognizer, paths: Iterable[Path], **options: Any) -> list[Transcript | Failure]:
    """Return the results of transcribing audio files."""
    return list(recognizer.transcribe_sources(recognizer.files(paths), **options))


def sources(audio: list[Tensor]) -> list[Source]:
    """Return waveforms as sources, with their indices as ids."""
    return [Source(str(i), partial(Opened, [a], len(a) / RATE)) for i, a in enumerate(audio)]


def whisper_folder(folder: Path, *, without: str = "", reshaped: dict[str, tuple[int, ...]] | None = None) -> Path:
    """Write a one-layer, English-only Whisper as a CTranslate2 folder, `without` one of its variables."""
    folder.mkdir(parents=True)
    shapes = whisper_shapes() | (reshaped or {})
    draw = np.random.default_rng(0)
    variables = [variable(name, draw.normal(0, 1, shape)) for name, shape in shapes.items() if name != without]
    if without != WHISPER_POSITIONS:
        variables.append(variable(WHISPER_POSITIONS, sinusoids(1500, 16).numpy()))
    heads = [variable(f"{side}/num_heads", 2, INT16) for side in ("encoder", "decoder")]
    (folder / "model.bin").write_bytes(container([*variables, *(h for h in heads if h[0].decode() != without)]))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(whisper_json())
    return folder


def whisper_shapes(dim: int = 16, n_mels: int = 8, vocab_size: int = SMALL_VOCABULARY) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that `whisper_folder` writes, by their names in CTranslate2."""
    linears: dict[str, tuple[int, ...]] = {"encoder/conv1": (dim, n_mels, 3), "encoder/conv2": (dim, dim, 3)}
    norms = ["encoder/layer_norm", "decoder/layer_norm"]
    for side, attentions in (("encoder", ["self_attention"]), ("decoder", ["self_attention", "attention"])):
        layer = f"{side}/layer_0"
        for attention in attentions:
            outs = [dim, 2 * dim, dim] if attention == "attention" else [3 * dim, dim]
            linears |= {f"{layer}/{attention}/linear_{i}": (out, dim) for i, out in enumerate(outs)}
        linears |= {f"{layer}/ffn/linear_0": (2 * dim, dim), f"{layer}/ffn/linear_1": (dim, 2 * dim)}
        norms += [f"{layer}/{part}/layer_norm" for part in (*attentions, "ffn")]
    shapes: dict[str, tuple[int, ...]] = {"decoder/embeddings/weight": (vocab_size, dim)}
    shapes |= {"decoder/position_encodings/encodings": (20, dim)}
    for name, shape in linears.items():
        shapes |= {f"{name}/weight": shape, f"{name}/bias": shape[:1]}
    return shapes | {f"{name}/{part}": (dim,) for name in norms for part in ("gamma", "beta")}

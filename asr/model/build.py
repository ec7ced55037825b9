"""From configuration to model: the only place that branches on a 'kind'."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from asr.config import EncoderConfig, FeaturesConfig, LanguageModelConfig, ModelConfig, WhisperFeaturesConfig
from asr.features import FrontEnd, build_front_end
from asr.model.attention import CrossAttention, SelfAttention
from asr.model.decoder import Decoder, DecoderLayer
from asr.model.encoder import Encoder, EncoderLayer
from asr.model.heads import CTCHead
from asr.model.language import CausalLayer, LanguageModel
from asr.model.layers import FeedForward, PostNorm, PreNorm, Residual
from asr.model.padding import AnyPadding, KeepSilence, MaskPadding, RecallSilence
from asr.model.position import LearnedPosition, Position, SinusoidalPosition
from asr.model.speech import SpeechModel
from asr.model.subsampling import Conv1dSubsampling, Conv2dSubsampling, GluSubsampling, Subsampling

_RESIDUALS: dict[str, Residual] = {"pre": PreNorm, "post": PostNorm}
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def build_model(features: FeaturesConfig, model: ModelConfig, vocab_size: int) -> SpeechModel:
    """Build an untrained model; its weights follow torch's random state."""
    return _around(build_front_end(features), features, model, vocab_size)


def empty_model(features: FeaturesConfig, model: ModelConfig, vocab_size: int) -> SpeechModel:
    """Build a model whose weights hold anything: they are still to be loaded."""
    with _NoInit():
        return build_model(features, model, vocab_size)


def weights_needed(features: FeaturesConfig, model: ModelConfig, vocab_size: int) -> int:
    """How many numbers the weights of such a model are, found without memory for them."""
    front_end = build_front_end(features)
    with torch.device("meta"), _NoInit():  # for random numbers here, torch would load its compiler: 110 MB
        return _around(front_end, features, model, vocab_size).parameters_count


class _NoInit(TorchFunctionMode):
    """Leaves out the random numbers that torch's modules begin with."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.__name__.endswith(("normal_", "uniform_")):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _around(front_end: FrontEnd, features: FeaturesConfig, model: ModelConfig, vocab_size: int) -> SpeechModel:
    encoder = _encoder(model, features, front_end.hop_s)
    decoder = _decoder(model, vocab_size)
    ctc = CTCHead(model.encoder.dim, vocab_size) if model.ctc else None
    return SpeechModel(front_end, encoder, decoder, ctc)


def _subsampling(model: ModelConfig, n_mels: int) -> Subsampling:
    config, dim = model.encoder.subsampling, model.encoder.dim
    channels = config.channels or dim
    if config.kind == "glu":
        return GluSubsampling(n_mels, channels, dim, config.factor)
    kinds: dict[str, type[Conv1dSubsampling] | type[Conv2dSubsampling]]
    kinds = {"conv1d": Conv1dSubsampling, "conv2d": Conv2dSubsampling}
    return kinds[config.kind](n_mels, channels, dim, config.factor, _ACTIVATIONS[model.activation]())


def _padding(config: EncoderConfig, features: FeaturesConfig, hop_s: float) -> AnyPadding:
    if config.padding == "mask":
        return MaskPadding()
    if config.padding == "keep":
        return KeepSilence()
    assert isinstance(features, WhisperFeaturesConfig)
    frame_s = hop_s * config.subsampling.factor
    window = math.ceil(round(features.window_s / hop_s) / config.subsampling.factor)
    return RecallSilence(round(config.keep_s / frame_s), window, frame_s, config.layers + 1, config.dim)


def _encoder(model: ModelConfig, features: FeaturesConfig, hop_s: float) -> Encoder:
    config = model.encoder
    dim, p, residual = config.dim, config.dropout, _RESIDUALS[config.norm]
    layers = [
        EncoderLayer(
            dim,
            SelfAttention(dim, config.heads),
            FeedForward(dim, config.feed_forward, _ACTIVATIONS[model.activation](), p),
            residual,
            p,
        )
        for _ in range(config.layers)
    ]
    position = SinusoidalPosition(dim, first=config.first_position, scale=_scale(dim, config.scaled))
    subsampling = _subsampling(model, features.n_mels)
    return Encoder(subsampling, position, _padding(config, features, hop_s), layers, residual.last(dim), p)


def _scale(dim: int, scaled: bool) -> float:
    return float(dim**0.5) if scaled else 1.0


def _decoder(model: ModelConfig, vocab_size: int) -> Decoder:
    config, dim = model.decoder, model.encoder.dim
    p, residual = config.dropout, _RESIDUALS[config.norm]
    layers = [
        DecoderLayer(
            dim,
            SelfAttention(dim, config.heads),
            CrossAttention(dim, config.heads),
            FeedForward(dim, config.feed_forward, _ACTIVATIONS[model.activation](), p),
            residual,
            p,
        )
        for _ in range(config.layers)
    ]
    embedding = nn.Embedding(vocab_size, dim)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    output = nn.Linear(dim, vocab_size, bias=False)
    if config.tied_output:
        output.weight = embedding.weight
    scale, length = _scale(dim, config.scaled), config.max_length
    position: Position
    if config.position == "learned":
        position = LearnedPosition(dim, length, scale=scale)
    else:
        position = SinusoidalPosition(dim, length=length, first=config.first_position, scale=scale)
    return Decoder(embedding, position, layers, residual.last(dim), output, p)


def build_language_model(config: LanguageModelConfig, vocab_size: int, begin_id: int) -> LanguageModel:
    """Build an untrained language model; its weights follow torch's random state."""
    dim, p, residual = config.dim, config.dropout, _RESIDUALS[config.norm]
    layers = [
        CausalLayer(
            dim, SelfAttention(dim, config.heads), FeedForward(dim, config.feed_forward, nn.GELU(), p), residual, p
        )
        for _ in range(config.layers)
    ]
    embedding = nn.Embedding(vocab_size, dim)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    position = SinusoidalPosition(dim, length=448, scale=_scale(dim, scaled=True))  # else positions outweigh tokens
    return LanguageModel(embedding, position, layers, residual.last(dim), p, begin_id)


def empty_language_model(
    config: LanguageModelConfig, vocab_size: int, begin_id: int, most: int
) -> LanguageModel | None:
    """One whose weights are still to be loaded; None if they are more than `most` numbers."""
    with torch.device("meta"), _NoInit():
        size = sum(p.numel() for p in build_language_model(config, vocab_size, begin_id).parameters())
    if size > most:
        return None
    with _NoInit():
        return build_language_model(config, vocab_size, begin_id)

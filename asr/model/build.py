"""From configuration to model: the parts of a model are chosen here."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from asr.config import (
    DecoderConfig,
    EncoderConfig,
    FeaturesConfig,
    LanguageModelConfig,
    MaskPredictConfig,
    ModelConfig,
    TransducerConfig,
    TransformerDecoderConfig,
    WhisperFeaturesConfig,
)
from asr.features import build_front_end
from asr.model.additive import Additive
from asr.model.attention import CrossAttention, Form, SelfAttention
from asr.model.band import Chunks, Window
from asr.model.conformer import ConformerLayer, ConvolutionModule
from asr.model.decoder import Decoder, DecoderLayer
from asr.model.encoder import Encoder, EncoderLayer, Layer
from asr.model.language import CausalLayer, LanguageModel
from asr.model.layers import FeedForward, Placement, PostNorm, PreNorm, Stacked
from asr.model.masked import LengthHead, MaskedDecoder
from asr.model.norms import BatchNorm, Norm, PowerNorm, RMSNorm
from asr.model.padding import AnyPadding, KeepSilence, MaskPadding, RecallSilence
from asr.model.pointer import Pointer
from asr.model.position import LearnedPosition, NoPosition, Position, SinusoidalPosition
from asr.model.recurrent import RecurrentLayer
from asr.model.relative import Rotary, Shaw, TransformerXL
from asr.model.speech import CTCHead, SpeechModel
from asr.model.subsampling import Conv1dSubsampling, Conv2dSubsampling, GluSubsampling, Subsampling
from asr.model.transducer import ConvPredictor, Joiner, LstmPredictor, Transducer

ModelT = TypeVar("ModelT", bound=nn.Module)

_RESIDUALS: dict[str, type[Placement]] = {"pre": PreNorm, "post": PostNorm, "none": Stacked}
_NORMS: dict[str, Norm] = {"layer": nn.LayerNorm, "rms": RMSNorm, "batch": BatchNorm, "power": PowerNorm}
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def build_model(features: FeaturesConfig, model: ModelConfig, vocab_size: int) -> SpeechModel:
    """Build an untrained model, initialised from torch's random state."""
    with torch.device("cpu"):  # its tables are computed, which they cannot be on the meta device
        front_end = build_front_end(features)
    encoder = _encoder(model, features, front_end.hop_s)
    decoder = _any_decoder(model, vocab_size)
    ctc = CTCHead(model.encoder.dim, vocab_size) if model.ctc else None
    return SpeechModel(front_end, encoder, decoder, ctc)


def unfilled(build: Callable[..., ModelT], *sizes: Any) -> ModelT:
    """Build a model from its sizes, with uninitialised weights, to be loaded afterwards."""
    with _NoInit():
        return build(*sizes)


def weights_needed(build: Callable[..., nn.Module], *sizes: Any) -> int:
    """Return the number of parameters of such a model, without allocating memory for them."""
    with torch.device("meta"):  # unfilled, as random numbers would make torch load its compiler: 110 MB
        return sum(p.numel() for p in unfilled(build, *sizes).parameters())


def token_weights(features: FeaturesConfig, model: ModelConfig) -> set[str]:
    """Return the names of the weights that have a row for each token."""
    with torch.device("meta"):
        few, more = (unfilled(build_model, features, model, size).state_dict() for size in (10, 11))
    return {name for name in few if few[name].shape != more[name].shape}


class _NoInit(TorchFunctionMode):
    """Skips the random initialisation of torch's modules."""

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
    config, dim = model.encoder, model.encoder.dim
    layers = [_layer(model) for _ in range(config.layers)]
    last = _RESIDUALS[config.norm].last(_NORMS[config.normalization], dim)
    if config.layer == "conformer":  # its layers end in a norm already
        last = nn.Identity()
    position = _position(dim, config, _frames(config, hop_s))
    if config.layer == "lstm":  # the recurrence already knows the order
        position = NoPosition()
    subsampling = _subsampling(model, features.n_mels)
    return Encoder(subsampling, position, _padding(config, features, hop_s), layers, last, config.dropout)


def _layer(model: ModelConfig) -> Layer:
    config = model.encoder
    dim, p, norm = config.dim, config.dropout, _NORMS[config.normalization]
    residual = partial(_RESIDUALS[config.norm], norm)
    if config.layer == "lstm":
        return RecurrentLayer(dim, residual, p)

    def feed_forward() -> FeedForward:
        return FeedForward(dim, config.feed_forward, _ACTIVATIONS[model.activation](), p)

    attention = SelfAttention(dim, config.heads, _reaching(config, _form(dim, config)))
    if config.layer == "conformer":
        convolution = ConvolutionModule(dim, config.kernel, norm)
        return ConformerLayer(dim, attention, convolution, (feed_forward(), feed_forward()), residual, norm(dim), p)
    return EncoderLayer(dim, attention, feed_forward(), residual, p)


def _frames(config: EncoderConfig, hop_s: float) -> int:
    """Return the initial number of positions; a table of sinusoids can grow, but trained vectors cannot."""
    if config.position != "learned":
        return 1500
    return math.ceil(config.longest_s / hop_s / config.subsampling.factor) + 1


def _position(dim: int, config: EncoderConfig | TransformerDecoderConfig, length: int) -> Position:
    """Build what is added to the vectors of a sequence."""
    scale = float(dim**0.5) if config.scaled else 1.0
    if config.position == "learned":
        return LearnedPosition(dim, length, scale=scale)
    if config.position == "sinusoidal":
        return SinusoidalPosition(dim, length=length, first=config.first_position, scale=scale)
    return NoPosition(scale=scale)


def _score(dim: int, config: EncoderConfig | TransformerDecoderConfig) -> Form:
    p = config.attention_dropout
    return Additive(dim, config.heads, p) if config.score == "additive" else Form(p)


def _form(dim: int, config: EncoderConfig | TransformerDecoderConfig) -> Form:
    """Build the scores of self-attention."""
    p = config.attention_dropout
    if config.position == "shaw":
        return Shaw(dim, config.heads, config.clip, p)
    if config.position == "transformer_xl":
        return TransformerXL(dim, config.heads, p)
    return Rotary(p) if config.position == "rotary" else _score(dim, config)


def _reaching(config: EncoderConfig, form: Form) -> Form:
    """Restrict self-attention to a window or to chunks, if the configuration says so."""
    if config.window is not None:
        return Window(form, config.window.left, config.window.right)
    return Chunks(form, config.chunk.frames, config.chunk.left) if config.chunk is not None else form


def _any_decoder(model: ModelConfig, vocab_size: int) -> nn.Module | None:
    if isinstance(model.decoder, TransformerDecoderConfig):
        return _decoder(model, model.decoder, vocab_size)
    if isinstance(model.decoder, TransducerConfig):
        return _transducer(model.encoder.dim, model.decoder, vocab_size)
    return None


def _transducer(dim: int, config: TransducerConfig, vocab_size: int) -> Transducer:
    predictor: LstmPredictor | ConvPredictor
    if config.predictor == "lstm":
        predictor = LstmPredictor(vocab_size, config.dim, config.layers, config.dropout)
    else:
        predictor = ConvPredictor(vocab_size, config.dim, config.context, config.dropout)
    return Transducer(predictor, Joiner(dim, config.dim, config.joiner, vocab_size))


def _decoder(model: ModelConfig, config: TransformerDecoderConfig, vocab_size: int) -> Decoder | MaskedDecoder:
    dim = model.encoder.dim
    p, norm, placed = config.dropout, _NORMS[config.normalization], _RESIDUALS[config.norm]
    residual = partial(placed, norm)
    layers = [
        DecoderLayer(
            dim,
            SelfAttention(dim, config.heads, _form(dim, config)),
            CrossAttention(dim, config.heads, _score(dim, config)),
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
    position = _position(dim, config, config.max_length)
    parts = embedding, position, layers, placed.last(norm, dim), output, p
    if isinstance(config, DecoderConfig):
        return Decoder(*parts, Pointer(dim, config.pointer.size or dim) if config.pointer is not None else None)
    return MaskedDecoder(*parts, LengthHead(dim, config.max_length) if isinstance(config, MaskPredictConfig) else None)


def build_language_model(config: LanguageModelConfig, vocab_size: int, begin_id: int) -> LanguageModel:
    """Build an untrained language model, initialised from torch's random state."""
    dim, p, placed = config.dim, config.dropout, _RESIDUALS[config.norm]
    residual = partial(placed, nn.LayerNorm)
    layers = [
        CausalLayer(
            dim, SelfAttention(dim, config.heads), FeedForward(dim, config.feed_forward, nn.GELU(), p), residual, p
        )
        for _ in range(config.layers)
    ]
    embedding = nn.Embedding(vocab_size, dim)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    position = SinusoidalPosition(dim, length=448, scale=float(dim**0.5))  # otherwise positions outweigh tokens
    return LanguageModel(embedding, position, layers, placed.last(nn.LayerNorm, dim), p, begin_id)

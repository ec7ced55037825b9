"""Whisper of the transformers library with the weights of a CTranslate2 folder: the reference of parity tests.

The container is read and names are mapped independently of `asr`, so that both cannot share a mistake. The input is
trusted; `asr.pretrained.ct2` is the reader for files that may be broken.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

NUMPY_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
TIME_STAMPS = 1501  # every Whisper vocabulary ends with <|notimestamps|> and then <|0.00|> to <|30.00|>


def hf_whisper_from_ct2(folder: str | Path) -> WhisperForConditionalGeneration:
    """Load a CTranslate2 folder as Whisper in float32 and evaluation mode, with its generation settings.

    Only float weights (float32, float16) are supported. English-only and multilingual vocabularies are distinguished
    by size, as OpenAI does; `generate` of a multilingual model still needs `language` and `task`.
    """
    folder = Path(folder)
    weights = _read(folder / "model.bin")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = _config(weights)
    model = WhisperForConditionalGeneration(config)
    state = {name: torch.from_numpy(value.astype(np.float32)) for name, value in _hf_state(weights, config).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"proj_out.weight"}:  # proj_out is tied to the embedding
        raise ValueError(f"the mapping leaves out {missing} and makes up {unexpected}")
    model.tie_weights()
    model.generation_config = _generation_config(config, settings)
    return model.eval()


def _read(path: Path) -> dict[str, np.ndarray]:
    data, at = path.read_bytes(), 0

    def take(layout: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{layout}", data, at)
        at += struct.calcsize(f"<{layout}")
        return int(value)

    def name() -> str:
        nonlocal at
        length = take("H")
        at += length
        return data[at - length : at - 1].decode()

    version, spec, _revision, count = take("I"), name(), take("I"), take("I")
    if (version, spec) != (6, "WhisperSpec"):
        raise ValueError(f"{path}: version {version}, {spec}")
    weights = {}
    for _ in range(count):
        key = name()
        shape = [take("I") for _ in range(take("B"))]
        kind, size = take("B"), take("I")
        weights[key] = np.frombuffer(data[at : at + size], NUMPY_TYPES[kind]).reshape(shape)
        at += size
    for _ in range(take("I")):
        alias, key = name(), name()
        weights[alias] = weights[key]
    if at != len(data):
        raise ValueError(f"{path}: {len(data) - at} bytes too many")
    return weights


def _layers(weights: dict[str, np.ndarray], side: str) -> int:
    return len({name.split("/")[1] for name in weights if name.startswith(f"{side}/layer_") and name.count("/") > 2})


def _config(weights: dict[str, np.ndarray]) -> WhisperConfig:
    vocabulary, width = weights["decoder/embeddings/weight"].shape
    end = 50256 if vocabulary < 51865 else 50257
    return WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=weights["encoder/conv1/weight"].shape[1],
        d_model=width,
        encoder_layers=_layers(weights, "encoder"),
        decoder_layers=_layers(weights, "decoder"),
        encoder_attention_heads=int(weights["encoder/num_heads"]),
        decoder_attention_heads=int(weights["decoder/num_heads"]),
        encoder_ffn_dim=weights["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=weights["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=weights["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=weights["decoder/position_encodings/encodings"].shape[0],
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end + 1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _generation_config(config: WhisperConfig, settings: dict) -> GenerationConfig:
    options = {
        "bos_token_id": config.eos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "max_length": config.max_target_positions,
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
        "alignment_heads": settings["alignment_heads"],
        "no_timestamps_token_id": config.vocab_size - TIME_STAMPS - 1,
        "is_multilingual": config.vocab_size >= 51865,
        "return_timestamps": False,
    }
    return GenerationConfig(**options)


def _hf_state(weights: dict[str, np.ndarray], config: WhisperConfig) -> dict[str, np.ndarray]:
    state = {
        "model.encoder.embed_positions.weight": weights["encoder/position_encodings/encodings"],
        "model.decoder.embed_positions.weight": weights["decoder/position_encodings/encodings"],
        "model.decoder.embed_tokens.weight": weights["decoder/embeddings/weight"],
    }
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            state[f"model.encoder.{conv}.{part}"] = weights[f"encoder/{conv}/{part}"]
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        _norm(state, f"model.{side}.layer_norm", weights, f"{side}/layer_norm")
        for index in range(layers):
            _layer(state, f"model.{side}.layers.{index}", weights, f"{side}/layer_{index}", side == "decoder")
    return state


def _layer(state: dict, to: str, weights: dict, source: str, cross: bool) -> None:
    _attention(state, f"{to}.self_attn", weights, f"{source}/self_attention", ("qkv", "o"))
    _norm(state, f"{to}.self_attn_layer_norm", weights, f"{source}/self_attention/layer_norm")
    if cross:
        _attention(state, f"{to}.encoder_attn", weights, f"{source}/attention", ("q", "kv", "o"))
        _norm(state, f"{to}.encoder_attn_layer_norm", weights, f"{source}/attention/layer_norm")
    _norm(state, f"{to}.final_layer_norm", weights, f"{source}/ffn/layer_norm")
    for index, name in enumerate(("fc1", "fc2")):
        for part in ("weight", "bias"):
            state[f"{to}.{name}.{part}"] = weights[f"{source}/ffn/linear_{index}/{part}"]


def _attention(state: dict, to: str, weights: dict, source: str, stacks: tuple[str, ...]) -> None:
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    for index, stack in enumerate(stacks):
        for part in ("weight", "bias"):
            pieces = np.split(weights[f"{source}/linear_{index}/{part}"], len(stack))
            for letter, piece in zip(stack, pieces, strict=True):
                if (letter, part) != ("k", "bias"):  # Whisper's keys have no bias: the stack holds zeros
                    state[f"{to}.{names[letter]}.{part}"] = piece
                elif piece.any():
                    raise ValueError(f"{source}: the bias of the keys is not zero")


def _norm(state: dict, to: str, weights: dict, source: str) -> None:
    state[f"{to}.weight"], state[f"{to}.bias"] = weights[f"{source}/gamma"], weights[f"{source}/beta"]

"""Whisper (Radford et al. 2023) in its three published formats: OpenAI, Hugging Face and CTranslate2.

All sizes, English-only and multilingual, including large-v3 with its 128 mel bins and 100 languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

from asr.config import ModelConfig
from asr.errors import CheckpointError
from asr.files.small import first_problem, read_json
from asr.model.position import sinusoids
from asr.pretrained.ct2 import Ct2Model, read_ct2, read_ct2_config
from asr.pretrained.files import (
    Count,
    Heads,
    Id,
    Ids,
    Pretrained,
    Settings,
    VocabSize,
    folder_config,
    hugging_face_tensors,
    tensors_by_name,
)
from asr.pretrained.names import WHISPER_CTRANSLATE2, WHISPER_HUGGING_FACE, WHISPER_OPENAI, WhisperNames
from asr.pretrained.pickled import load_pickled
from asr.pretrained.vocabulary import hugging_face_vocabulary, non_speech, openai_vocabulary
from asr.pretrained.weights import State, Weights, expecting, layers, put
from asr.tokenizer import WhisperTokenizer
from asr.tokenizer.whisper import TIME_STAMPS

WHOSE = "Whisper's"
FRAMES_PER_S = 50  # of the encoder: a hop of 10 ms, subsampled by 2


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a Whisper model; frames, tokens: the number of positions of encoder and decoder."""

    n_mels: int
    dim: int
    frames: int
    tokens: int
    layers: tuple[int, int]
    heads: tuple[int, int]
    feed_forward: tuple[int, int]
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "gelu"
    tied: bool = True


def from_hugging_face(folder: Path) -> Pretrained:
    """Read a Whisper model from a Hugging Face folder, with the generation settings that belong to the model."""
    config = read_json(_HuggingFace, folder / "config.json")
    generation = _Generation()
    if (folder / "generation_config.json").is_file():
        generation = read_json(_Generation, folder / "generation_config.json")
    path, tensors = hugging_face_tensors(folder)
    weights = Weights(path, tensors)
    suppress, suppress_first = generation.suppress_tokens, generation.begin_suppress_tokens
    tokenizer = _tokenizer(
        *hugging_face_vocabulary(folder),
        config.vocab_size,
        suppress=(config.suppress_tokens if suppress is None else suppress) or (),
        suppress_first=(config.begin_suppress_tokens if suppress_first is None else suppress_first) or (),
        multilingual=generation.is_multilingual,
        start_id=config.decoder_start_token_id,
    )
    sizes = _Sizes(
        n_mels=config.num_mel_bins,
        dim=config.d_model,
        frames=config.max_source_positions,
        tokens=config.max_target_positions,
        layers=(config.encoder_layers, config.decoder_layers),
        heads=(config.encoder_attention_heads, config.decoder_attention_heads),
        feed_forward=(config.encoder_ffn_dim, config.decoder_ffn_dim),
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation=config.activation_function,
        tied=config.tie_word_embeddings,
    )
    return _pretrained(
        folder / "config.json", weights, WHISPER_HUGGING_FACE, sizes, tokenizer, generation.alignment_heads or ()
    )


def from_openai(path: Path, vocabulary: Path | None) -> Pretrained:
    """Read a Whisper model from OpenAI's own `.pt`, suppressing the tokens that OpenAI's decoding suppresses."""
    content = load_pickled(path)
    if not isinstance(content, dict) or not {"dims", "model_state_dict"} <= content.keys():
        raise CheckpointError(f"{path}: not OpenAI's Whisper: it has no dims and model_state_dict")
    try:
        dims = _Dims.model_validate(content["dims"])
    except ValidationError as e:
        raise CheckpointError(f"{path}: not OpenAI's Whisper: dims: {first_problem(e)}") from e
    tensors = tensors_by_name(path, content["model_state_dict"])
    if dims.n_audio_state != dims.n_text_state:
        raise CheckpointError(f"{path}: encoder and decoder of different widths are no Whisper")
    named, pieces = openai_vocabulary(path, vocabulary, dims.n_vocab)
    suppress, suppress_first = non_speech(_tokenizer(named, pieces, dims.n_vocab))
    tokenizer = _tokenizer(named, pieces, dims.n_vocab, suppress=suppress, suppress_first=suppress_first)
    sizes = _Sizes(
        n_mels=dims.n_mels,
        dim=dims.n_audio_state,
        frames=dims.n_audio_ctx,
        tokens=dims.n_text_ctx,
        layers=(dims.n_audio_layer, dims.n_text_layer),
        heads=(dims.n_audio_head, dims.n_text_head),
        feed_forward=(4 * dims.n_audio_state, 4 * dims.n_text_state),
    )
    return _pretrained(path, Weights(path, tensors), WHISPER_OPENAI, sizes, tokenizer, ())


def from_ctranslate2(folder: Path) -> Pretrained:
    """Read a Whisper model from a CTranslate2 folder, the format of faster-whisper; int8 and int16 are dequantised."""
    ct2 = read_ct2(folder / "model.bin")
    settings = read_ct2_config(folder)
    weights = Weights(ct2.path, ct2.weights(), _spell_ctranslate2)
    with expecting(WHOSE, ct2.path):
        dim, n_mels, _ = weights["encoder.conv1.weight"].shape
        frames, _ = weights[WHISPER_CTRANSLATE2.encoder_position].shape
        tokens, _ = weights[WHISPER_CTRANSLATE2.position].shape
        vocab_size, _ = weights[WHISPER_CTRANSLATE2.embedding].shape
        inner = [len(weights[f"{side}.layer_0.ffn.linear_0.weight"]) for side in ("encoder", "decoder")]
        sizes = _Sizes(
            n_mels=n_mels,
            dim=dim,
            frames=frames,
            tokens=tokens,
            layers=(_count_layers(ct2, "encoder"), _count_layers(ct2, "decoder")),
            heads=(ct2.setting("encoder/num_heads"), ct2.setting("decoder/num_heads")),
            feed_forward=(inner[0], inner[1]),
        )
    tokenizer = _tokenizer(
        *hugging_face_vocabulary(folder),
        vocab_size,
        suppress=settings.suppress_ids,
        suppress_first=settings.suppress_ids_begin,
    )
    return _pretrained(ct2.path, weights, WHISPER_CTRANSLATE2, sizes, tokenizer, settings.alignment_heads)


class _HuggingFace(Settings):
    """`config.json` of a Hugging Face folder; missing keys have the library's defaults."""

    d_model: Count
    encoder_layers: Count
    decoder_layers: Count
    encoder_attention_heads: Count
    decoder_attention_heads: Count
    encoder_ffn_dim: Count
    decoder_ffn_dim: Count
    vocab_size: VocabSize
    decoder_start_token_id: Id
    num_mel_bins: Count = 80
    max_source_positions: Count = 1500
    max_target_positions: Count = 448
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_function: str = "gelu"
    tie_word_embeddings: bool = True
    suppress_tokens: Ids | None = None
    begin_suppress_tokens: Ids | None = None


class _Generation(Settings):
    """`generation_config.json`."""

    suppress_tokens: Ids | None = None
    begin_suppress_tokens: Ids | None = None
    alignment_heads: Heads | None = None
    is_multilingual: bool | None = None


class _Dims(Settings):
    """`dims` of OpenAI's file."""

    n_mels: Count
    n_audio_ctx: Count
    n_audio_state: Count
    n_audio_head: Count
    n_audio_layer: Count
    n_vocab: VocabSize
    n_text_ctx: Count
    n_text_state: Count
    n_text_head: Count
    n_text_layer: Count


def _count_layers(ct2: Ct2Model, side: str) -> int:
    return len(
        {name.split("/")[1] for name in ct2.variables if name.startswith(f"{side}/layer_") and name.count("/") > 2}
    )


def _spell_ctranslate2(name: str) -> str:
    if ".layer_norm." in name:
        name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
    return name.replace(".", "/")


def _tokenizer(
    path: Path,
    content: bytes,
    vocab_size: int,
    *,
    suppress: Sequence[int] = (),
    suppress_first: Sequence[int] = (),
    multilingual: bool | None = None,
    start_id: int | None = None,
) -> WhisperTokenizer:
    """Build the tokenizer; raise CheckpointError naming `path` unless it matches the weights.

    start_id: the start token that the weights' own settings name, if any.
    """
    try:
        tokenizer = WhisperTokenizer(
            content,
            vocab_size=vocab_size,
            multilingual=multilingual,
            suppressed_ids=suppress,
            suppressed_first_ids=suppress_first,
        )
    except ValueError as e:
        raise CheckpointError(f"{path}: {e}") from e
    end = max(tokenizer.no_time_stamps_id + 1 + TIME_STAMPS, *(i + 1 for i in tokenizer.special_ids.values()))
    if start_id is not None and start_id != tokenizer.start_id:
        problem = f"its texts begin with token {tokenizer.start_id}, those of the weights with {start_id}"
        raise CheckpointError(f"{path}: this vocabulary does not fit the weights: {problem}")
    # If the start token matches, an embedding with more rows, padded to a round size, is not an error.
    if end > vocab_size or (start_id is None and end < vocab_size):
        raise CheckpointError(f"{path}: a vocabulary of {end} tokens does not fit these weights of {vocab_size}")
    return tokenizer


def _pretrained(
    settings: Path,
    weights: Weights,
    names: WhisperNames,
    sizes: _Sizes,
    tokenizer: WhisperTokenizer,
    heads: Heads,
) -> Pretrained:
    # Distilled models keep their teacher's list, which names heads of layers that they lack.
    heads = tuple((layer, head) for layer, head in heads if layer < sizes.layers[1] and head < sizes.heads[1])
    config = folder_config(_config(sizes, heads), WHOSE, settings)
    with expecting(WHOSE, weights.path):
        state = _state(weights, names, sizes, config.model)
    return Pretrained(WHOSE, weights.path, weights.size, config, state, tokenizer)


def _config(sizes: _Sizes, alignment_heads: Heads) -> dict[str, object]:
    def side(i: int) -> dict[str, object]:
        size = {"layers": sizes.layers[i], "heads": sizes.heads[i], "feed_forward": sizes.feed_forward[i]}
        return {**size, "dropout": sizes.dropout, "attention_dropout": sizes.attention_dropout}

    stem = {"kind": "conv1d", "factor": 2}
    encoder = side(0) | {"dim": sizes.dim, "subsampling": stem, "padding": "keep"}
    decoder = side(1) | {"max_length": sizes.tokens, "tied_output": sizes.tied, "alignment_heads": alignment_heads}
    return {
        "features": {"kind": "whisper", "n_mels": sizes.n_mels, "window_s": sizes.frames / FRAMES_PER_S},
        # Attention over 30 s costs more than it gains: parts of 12 s were both more accurate and faster on dev.
        "decode": {"guards": {"enabled": True}, "window_s": sizes.frames / FRAMES_PER_S, "cut_s": 12.0},
        "model": {"encoder": encoder, "decoder": decoder, "ctc": False, "activation": sizes.activation},
        "tokenizer": {"kind": "whisper"},
    }


def _state(weights: Weights, names: WhisperNames, sizes: _Sizes, model: ModelConfig) -> State:
    state = layers(weights, names.parts, {"encoder": names.encoder, "decoder": names.decoder}, model)
    for i, conv in enumerate(names.convs):
        put(state, f"encoder.subsampling.convs.{i}", weights, conv)
    for side, norm in zip(("encoder", "decoder"), names.norms, strict=True):
        put(state, f"{side}.norm", weights, norm)
    state["decoder.embedding.weight"] = weights[names.embedding]
    state["decoder.position.weight"] = weights[names.position]
    state["decoder.output.weight"] = weights[names.embedding if sizes.tied else names.output]
    if sizes.tied:
        weights.skip(names.output)
    position_TD = weights[names.encoder_position].float()
    shape = sizes.frames, sizes.dim
    if position_TD.shape != shape or not torch.allclose(position_TD, sinusoids(*shape), atol=5e-3):  # half precision
        raise ValueError("the encoder's positions are not Whisper's sinusoids")
    weights.refuse_rest()
    return state

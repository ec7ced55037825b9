"""fairseq's Speech2Text (Wang et al. 2020) as published on Hugging Face: models of LibriSpeech and MuST-C."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from asr.config import DecoderConfig, ModelConfig
from asr.errors import CheckpointError
from asr.files.small import read_json
from asr.pretrained.files import (
    Count,
    Id,
    Pretrained,
    Settings,
    VocabSize,
    folder_config,
    hugging_face_tensors,
)
from asr.pretrained.names import HUGGING_FACE
from asr.pretrained.weights import State, Weights, expecting, layers, put
from asr.tokenizer import Speech2TextTokenizer

WHOSE = "Speech2Text's"
PLACES = {side: f"model.{side}.layers.{{i}}" for side in ("encoder", "decoder")}


def from_hugging_face(folder: Path) -> Pretrained:
    """Read a Speech2Text model from a Hugging Face folder: weights, filter bank and vocabulary."""
    path = folder / "config.json"
    config = read_json(_HuggingFace, path)
    convs = config.num_conv_layers
    if config.conv_kernel_sizes != (5,) * convs or config.conv_channels % 2 or config.input_channels != 1:
        raise CheckpointError(f"{path}: its convolutions are not of width 5 over one channel, as Speech2Text's are")
    features = _Features()
    if (folder / "preprocessor_config.json").is_file():
        features = read_json(_Features, folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():
        features = read_json(_Processor, folder / "processor_config.json").feature_extractor
    spelling = _Spelling()
    if (folder / "tokenizer_config.json").is_file():
        spelling = read_json(_Spelling, folder / "tokenizer_config.json")
    weights_path, tensors = hugging_face_tensors(folder)
    weights = Weights(weights_path, tensors)
    tokenizer = Speech2TextTokenizer.from_folder(
        folder, vocab_size=config.vocab_size, upper_case=spelling.do_upper_case
    )
    if config.decoder_start_token_id != tokenizer.start_id:
        raise CheckpointError(f"{folder}: the vocabulary does not fit {path.name}: texts begin with another token")
    ours = folder_config(_config(config, features), WHOSE, path)
    with expecting(WHOSE, weights_path):
        state = _state(weights, config, ours.model)
    return Pretrained(WHOSE, weights_path, weights.size, ours, state, tokenizer)


class _HuggingFace(Settings):
    """`config.json`; missing keys have the library's defaults."""

    vocab_size: VocabSize
    d_model: Count
    encoder_layers: Count
    decoder_layers: Count
    encoder_attention_heads: Count
    decoder_attention_heads: Count
    encoder_ffn_dim: Count
    decoder_ffn_dim: Count
    decoder_start_token_id: Id = 2
    pad_token_id: Id = 1
    max_target_positions: Count = 1024
    num_conv_layers: int = Field(2, strict=True, ge=1, le=3)
    conv_kernel_sizes: tuple[int, ...] = (5, 5)
    conv_channels: Count = 1024
    input_channels: Count = 1
    input_feat_per_channel: Count = 80
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_function: str = "relu"
    scale_embedding: bool = True
    tie_word_embeddings: bool = True


class _Features(Settings):
    """`preprocessor_config.json`."""

    sampling_rate: Count = 16_000
    do_ceptral_normalize: bool = True  # the library's spelling
    normalize_means: bool = True
    normalize_vars: bool = True


class _Processor(Settings):
    """`processor_config.json`, where newer versions of the library keep the feature settings."""

    feature_extractor: _Features = _Features()


class _Spelling(Settings):
    """`tokenizer_config.json`."""

    do_upper_case: bool = False


def _config(config: _HuggingFace, features: _Features) -> dict[str, object]:
    # fairseq counts positions from the id after that of the padding token.
    both = {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
    both |= {"first_position": config.pad_token_id + 1, "scaled": config.scale_embedding}
    stem = {"kind": "glu", "factor": 2**config.num_conv_layers, "channels": config.conv_channels // 2}
    encoder = {
        "subsampling": stem,
        "dim": config.d_model,
        "layers": config.encoder_layers,
        "heads": config.encoder_attention_heads,
        "feed_forward": config.encoder_ffn_dim,
    }
    decoder = {
        "layers": config.decoder_layers,
        "heads": config.decoder_attention_heads,
        "feed_forward": config.decoder_ffn_dim,
        "max_length": config.max_target_positions,
        "tied_output": config.tie_word_embeddings,
        "position": "sinusoidal",
    }
    front_end = {
        "kind": "kaldi",
        "sample_rate_hz": features.sampling_rate,
        "n_mels": config.input_feat_per_channel,
        "normalize_means": features.do_ceptral_normalize and features.normalize_means,
        "normalize_vars": features.do_ceptral_normalize and features.normalize_vars,
    }
    model = {"encoder": encoder | both, "decoder": decoder | both, "ctc": False}
    return {
        "features": front_end,
        "model": model | {"activation": config.activation_function},
        "tokenizer": {"kind": "speech2text"},
    }


def _state(weights: Weights, config: _HuggingFace, model: ModelConfig) -> State:
    state = layers(weights, HUGGING_FACE, PLACES, model)
    for i in range(config.num_conv_layers):
        put(state, f"encoder.subsampling.convs.{i}", weights, f"model.encoder.conv.conv_layers.{i}")
    for side in PLACES:
        put(state, f"{side}.norm", weights, f"model.{side}.layer_norm")
    embedding, output = "model.decoder.embed_tokens.weight", "lm_head.weight"
    state["decoder.embedding.weight"] = weights[embedding]
    assert isinstance(model.decoder, DecoderConfig)
    state["decoder.output.weight"] = weights[embedding if model.decoder.tied_output else output]
    # Some files contain the sinusoids, which are computed here.
    weights.skip(output, *(f"model.{side}.embed_positions.weights" for side in PLACES))
    weights.refuse_rest()
    return state

"""Small models of the transformers library with seeded weights, written in the file formats of other projects.

The weight names of OpenAI and CTranslate2 are mapped independently of `asr`, so that both cannot share a mistake.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from test_ct2 import FLOAT16, FLOAT32, INT8, INT16, Variable, container, variable
from torch import Tensor
from transformers import (
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.utils import logging
from vocabularies import speech2text_files, whisper_json

from asr.tokenizer import WhisperTokenizer

logging.set_verbosity_error()
logging.disable_progress_bar()

RATE = 16_000
WINDOW_S = 3
POSITIONS = 60
ENDING = 0.6  # how much likelier the end of text becomes with every token
PIECES = 60
MUSTC = ("pt", "fr", "ru", "nl", "ro", "it", "es", "de")
SIZES: dict[str, Any] = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 40},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 2},
}


def sounds(*lengths_s: float) -> list[Tensor]:
    """Return seeded waveforms at 16 kHz that differ from each other and change over time."""
    draw = torch.Generator().manual_seed(3)
    waveforms = []
    for i, length_s in enumerate(lengths_s):
        time_N = torch.arange(round(length_s * RATE)) / RATE
        tone_N = torch.sin(2 * torch.pi * (150 + 90 * i) * time_N) * (1 + torch.sin(2 * torch.pi * (2 + i) * time_N))
        waveforms.append(0.1 * tone_N + 0.05 * torch.randn(len(time_N), generator=draw))
    return waveforms


def spread(model: PreTrainedModel, seed: int, eos_id: int, eos_bias: float) -> None:
    """Set random weights: tokens depend on the audio and differ in probability, and texts end now and then."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if weight.dim() > 1 and "encoder.embed_positions" not in name:  # sinusoids stay
                weight.copy_(noise * (2.0 / weight[0].numel()) ** 0.5)
            elif weight.dim() == 1:
                weight.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")))
        norm, end_D = model.model.decoder.layer_norm, model.get_output_embeddings().weight[eos_id]
        norm.weight.mul_(3.0)
        norm.bias.add_(end_D * (eos_bias / end_D.square().sum()))


def searched(
    model: PreTrainedModel, features: dict[str, Tensor], prefix: list[int], suppressed: Sequence[int], **options: Any
) -> tuple[list[list[int]], list[float]]:
    """Return tokens, without prefix and end, and scores of all hypotheses found by the search of transformers.

    What Whisper's own `generate` does around the search is left out.
    """
    config = model.generation_config
    ids = {name: getattr(config, name) for name in ("eos_token_id", "pad_token_id", "decoder_start_token_id")}
    settings = GenerationConfig(
        **ids,
        suppress_tokens=list(suppressed),
        begin_suppress_tokens=getattr(config, "begin_suppress_tokens", None),
        max_length=POSITIONS,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    found = GenerationMixin.generate(
        model,
        **features,
        generation_config=settings,
        decoder_input_ids=torch.tensor([prefix] * len(next(iter(features.values())))),
    )
    texts = [row[len(prefix) :] for row in found.sequences.tolist()]
    end = config.eos_token_id
    texts = [row[: row.index(end)] if end in row else row for row in texts]
    return texts, found.sequences_scores.tolist() if "sequences_scores" in found else []


# ---- Whisper -----------------------------------------------------------------------------------------------------


def hf_whisper(
    folder: Path,
    *,
    multilingual: bool = False,
    n_mels: int = 80,
    seed: int = 0,
    vocab_size: int | None = None,
    **options: Any,
) -> WhisperForConditionalGeneration:
    """Write a Whisper model with a window of 3 s, with save_pretrained, and return it."""
    tokenizer = WhisperTokenizer(whisper_json(), multilingual=multilingual, vocab_size=vocab_size)
    ids = tokenizer.special_ids
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_id)
    special["decoder_start_token_id"] = tokenizer.start_id
    sizes = {"num_mel_bins": n_mels, "max_source_positions": WINDOW_S * 50, "max_target_positions": POSITIONS}
    config = WhisperConfig(**(SIZES | special | sizes | {"vocab_size": tokenizer.vocab_size} | options))
    model = WhisperForConditionalGeneration(config).eval()
    spread(model, seed, tokenizer.eos_id, 0.0)
    with torch.no_grad():  # the longer a text, the likelier it ends
        end_D = model.get_output_embeddings().weight[tokenizer.eos_id]
        model.model.decoder.embed_positions.weight.add_(
            torch.arange(POSITIONS)[:, None] * ENDING * end_D / end_D.norm()
        )
    model.generation_config = GenerationConfig(
        **special,
        suppress_tokens=sorted({3, 4, *ids.values()} - {tokenizer.eos_id}),
        begin_suppress_tokens=[7, tokenizer.eos_id],
        alignment_heads=[[1, 0], [0, 1], [7, 0]],  # the last is a head of the teacher, as in distilled models
        is_multilingual=multilingual,
    )
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(whisper_json())
    return model


def hf_whisper_features(waveforms: Sequence[Tensor], n_mels: int = 80) -> Tensor:
    """Return the features (B, F, T) that transformers computes for a window of 3 s."""
    extractor = WhisperFeatureExtractor(feature_size=n_mels, chunk_length=WINDOW_S)
    return extractor([w.numpy() for w in waveforms], sampling_rate=RATE, return_tensors="pt").input_features


def openai_content(model: WhisperForConditionalGeneration) -> dict[str, Any]:
    """Return the content of OpenAI's `.pt` checkpoint with the same weights."""
    parts = {
        **{"self_attn": "attn", "encoder_attn": "cross_attn", "self_attn_layer_norm": "attn_ln"},
        **{"encoder_attn_layer_norm": "cross_attn_ln", "fc1": "mlp.0", "fc2": "mlp.2", "final_layer_norm": "mlp_ln"},
        **{"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out", "layers": "blocks"},
    }
    whole = {
        **{"encoder.embed_positions.weight": "encoder.positional_embedding", "encoder.layer_norm": "encoder.ln_post"},
        **{"decoder.embed_positions.weight": "decoder.positional_embedding", "decoder.layer_norm": "decoder.ln"},
        "decoder.embed_tokens": "decoder.token_embedding",
    }
    state = {}
    for name, value in model.model.state_dict().items():
        for theirs, openai in whole.items():
            name = name.replace(theirs, openai) if name.startswith(theirs) else name
        state[".".join(parts.get(part, part) for part in name.split("."))] = value
    c = model.config
    dims = {
        **{"n_mels": c.num_mel_bins, "n_vocab": c.vocab_size},
        **{"n_audio_ctx": c.max_source_positions, "n_audio_state": c.d_model},
        **{"n_audio_head": c.encoder_attention_heads, "n_audio_layer": c.encoder_layers},
        **{"n_text_ctx": c.max_target_positions, "n_text_state": c.d_model},
        **{"n_text_head": c.decoder_attention_heads, "n_text_layer": c.decoder_layers},
    }
    return {"dims": dims, "model_state_dict": state}


def ct2_whisper(folder: Path, model: WhisperForConditionalGeneration, kind: int = FLOAT32) -> None:
    """Write a CTranslate2 folder with the same weights, all of one type, as its converter does.

    kind: FLOAT32, FLOAT16, or INT8, where each row of a matrix has a scale, and biases and norms stay floats.
    """
    folder.mkdir(parents=True)
    state, config = model.model.state_dict(), model.config
    variables: list[Variable] = []

    def put(name: str, value: Tensor) -> None:
        if kind == INT8 and value.dim() > 1 and "position" not in name:
            rows = value.reshape(len(value), -1)
            scale = 127 / rows.abs().amax(1)
            variables.append(variable(f"{name}_scale", scale.numpy()))
            variables.append(variable(name, (rows * scale[:, None]).round().reshape(value.shape).numpy(), INT8))
        else:
            variables.append(variable(name, value.numpy(), FLOAT16 if kind == FLOAT16 else FLOAT32))

    def linear(name: str, *theirs: str) -> None:
        put(f"{name}/weight", torch.cat([state[f"{t}.weight"] for t in theirs]))
        zeros = torch.zeros(config.d_model)  # Whisper's keys have no bias
        put(f"{name}/bias", torch.cat([state.get(f"{t}.bias", zeros) for t in theirs]))

    def norm(name: str, theirs: str) -> None:
        put(f"{name}/gamma", state[f"{theirs}.weight"])
        put(f"{name}/beta", state[f"{theirs}.bias"])

    for i in (1, 2):
        linear(f"encoder/conv{i}", f"encoder.conv{i}")
    put("decoder/embeddings/weight", state["decoder.embed_tokens.weight"])
    for side, layers, heads in (
        ("encoder", config.encoder_layers, config.encoder_attention_heads),
        ("decoder", config.decoder_layers, config.decoder_attention_heads),
    ):
        put(f"{side}/position_encodings/encodings", state[f"{side}.embed_positions.weight"])
        variables.append(variable(f"{side}/num_heads", heads, INT16))
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for i in range(layers):
            ours, theirs = f"{side}/layer_{i}", f"{side}.layers.{i}"
            linear(f"{ours}/self_attention/linear_0", *(f"{theirs}.self_attn.{x}_proj" for x in "qkv"))
            linear(f"{ours}/self_attention/linear_1", f"{theirs}.self_attn.out_proj")
            norm(f"{ours}/self_attention/layer_norm", f"{theirs}.self_attn_layer_norm")
            if side == "decoder":
                linear(f"{ours}/attention/linear_0", f"{theirs}.encoder_attn.q_proj")
                linear(f"{ours}/attention/linear_1", *(f"{theirs}.encoder_attn.{x}_proj" for x in "kv"))
                linear(f"{ours}/attention/linear_2", f"{theirs}.encoder_attn.out_proj")
                norm(f"{ours}/attention/layer_norm", f"{theirs}.encoder_attn_layer_norm")
            linear(f"{ours}/ffn/linear_0", f"{theirs}.fc1")
            linear(f"{ours}/ffn/linear_1", f"{theirs}.fc2")
            norm(f"{ours}/ffn/layer_norm", f"{theirs}.final_layer_norm")
    scale = [(b"decoder/projection/weight_scale", b"decoder/embeddings/weight_scale")] if kind == INT8 else []
    aliases = [(b"decoder/projection/weight", b"decoder/embeddings/weight"), *scale]
    (folder / "model.bin").write_bytes(container(variables, aliases))
    generation = model.generation_config
    settings = {
        "suppress_ids": generation.suppress_tokens,
        "suppress_ids_begin": generation.begin_suppress_tokens,
        "alignment_heads": generation.alignment_heads,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text(whisper_json())


# ---- Speech2Text -------------------------------------------------------------------------------------------------


def hf_speech2text(
    folder: Path, *, multilingual: bool = False, seed: int = 11, eos_bias: float = 4.0, **options: Any
) -> Speech2TextForConditionalGeneration:
    """Write a Speech2Text model with its vocabulary and feature settings, as transformers does, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces, numbers = speech2text_files(MUSTC if multilingual else (), PIECES)
    (folder / "sentencepiece.bpe.model").write_bytes(pieces)
    (folder / "vocab.json").write_text(numbers)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_upper_case": not multilingual}))
    Speech2TextFeatureExtractor().save_pretrained(folder)
    config = Speech2TextConfig(**SIZES, vocab_size=PIECES, conv_channels=40, max_target_positions=POSITIONS, **options)
    model = Speech2TextForConditionalGeneration(config).eval()
    spread(model, seed, 2, eos_bias)
    model.save_pretrained(folder)
    return model

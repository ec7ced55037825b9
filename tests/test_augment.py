"""Augmentation of an epoch: speed perturbation, joined clips, noise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from synthetic import RATE, clip, described, mixer, short_cuts, white

import asr.data.augment
from asr.config import AugmentConfig
from asr.data.augment import NoiseMixer, Variation
from asr.data.cuts import load_audio, pieces, text_of
from asr.errors import DataError

SPEEDS = AugmentConfig(speeds=(0.9, 1.0, 1.1))
JOINING = AugmentConfig(speeds=(0.9, 1.0, 1.1), join=0.6, join_max_s=5.0)

# ---- the cuts of an epoch -------------------------------------------------------------------------------------


def test_exactly_the_configured_speeds_are_drawn() -> None:
    before = {c.id: c.duration for c in short_cuts()}
    speeds = [before[c.id] / c.duration for c in Variation(SPEEDS, 1).shuffled(short_cuts(), 0)]
    assert {round(s, 2) for s in speeds} == {0.9, 1.0, 1.1}
    assert len(speeds) == len(before)


def test_speeds_that_make_a_cut_too_long_are_not_drawn() -> None:
    config = AugmentConfig(speeds=(0.8, 1.0))
    found = Variation(config, 1, longest_s=2.0).shuffled(short_cuts(), 0)
    assert max(c.duration for c in found) <= 2.0
    assert any(c.recording.transforms for c in found)


def test_joined_clips_stay_below_the_limit_and_within_a_language() -> None:
    source = short_cuts(languages=("en", "es"))
    language = {text_of(c): c.supervisions[0].language for c in source}
    found = list(Variation(JOINING, 1).shuffled(source, 0))
    assert sorted(c.id for c in found) == sorted(c.id for c in source)
    assert max(c.duration for c in found) <= JOINING.join_max_s
    assert max(len(pieces(c)) for c in found) > 2
    assert all(len({language[w] for w in text_of(c).split()}) == 1 for c in found)


def test_join_probability_does_not_depend_on_the_number_of_languages() -> None:
    config = AugmentConfig(join=0.5, join_max_s=1000.0)
    for languages in (("en",), ("en", "es", "fr", "it")):
        source = short_cuts(languages=languages) * 20
        for found in (Variation(config, 1).shuffled(source, 0), list(Variation(config, 1).passing(source, 0))):
            count = sum(len(pieces(c)) > 1 for c in found)
            assert abs(count / len(source) - 0.5) < 4.5 * math.sqrt(0.25 / len(source))


def test_clips_are_not_joined_if_the_result_does_not_fit() -> None:
    found = list(Variation(JOINING, 1, fits=lambda joined: len(joined.supervisions) <= 2).shuffled(short_cuts(), 0))
    assert max(len(pieces(c)) for c in found) == 2


def test_text_and_audio_of_a_joined_cut_match(tmp_path: Path) -> None:
    levels = {f"w{i}": 0.05 * (i + 1) for i in range(12)}
    source = [
        clip(tmp_path / f"{word}.wav", np.full(rate, level), word, rate=rate)  # clips of two sample rates
        for (word, level), rate in zip(levels.items(), [RATE, 2 * RATE] * 6, strict=True)
    ]
    joined = [c for c in Variation(JOINING, 1).shuffled(source, 0) if len(pieces(c)) > 1]
    assert len(joined) > 3
    for c in joined:
        audio_N = load_audio(c, RATE)
        assert len(audio_N) == round(c.duration * RATE)
        starts = [s for s, _ in pieces(c)]
        assert starts == sorted(starts)
        for word, (start_s, part) in zip(text_of(c).split(), pieces(c), strict=True):
            middle = round((start_s + part.duration / 2) * RATE)
            torch.testing.assert_close(
                audio_N[middle - 500 : middle + 500], torch.full((1000,), levels[word]), atol=0.01, rtol=0
            )
            assert not audio_N[round((start_s + part.duration) * RATE) + 2 :][:700].any()


def test_augmentation_depends_only_on_seed_and_epoch() -> None:
    first = described(Variation(JOINING, 1).shuffled(short_cuts(), 0))
    assert first == described(Variation(JOINING, 1).shuffled(short_cuts(), 0))
    for seed, epoch in ((1, 1), (2, 0)):
        other = described(Variation(JOINING, seed).shuffled(short_cuts(), epoch))
        assert [id for id, _, _ in other] != [id for id, _, _ in first]
    speeds = [
        {c.id: c.duration for c in Variation(SPEEDS, seed).shuffled(short_cuts(), epoch)}
        for seed, epoch in ((1, 0), (1, 1), (2, 0))
    ]
    assert speeds[0] not in speeds[1:]


# ---- noise ----------------------------------------------------------------------------------------------------


def snr_db(speech_N: torch.Tensor, mixed_N: torch.Tensor) -> float:
    return 10 * math.log10(speech_N.square().mean() / (mixed_N - speech_N).square().mean())


@pytest.mark.parametrize("expected", [-5.0, 0.0, 12.5, 30.0])
@pytest.mark.parametrize("samples", [100, 3 * RATE], ids=["shorter", "longer"])
def test_noise_is_mixed_at_the_drawn_snr(tmp_path: Path, expected: float, samples: int) -> None:
    mix = mixer(tmp_path / "noise", white(samples) * np.linspace(0.1, 1, samples), (expected, expected))
    speech_N = torch.from_numpy(white(RATE, 1)).float()
    for id in "abc":
        mixed_N, noisy = mix(speech_N, id, 0)
        assert noisy
        assert len(mixed_N) == len(speech_N)
        assert snr_db(speech_N, mixed_N) == pytest.approx(expected, abs=0.1)


def test_snrs_and_noisy_utterances_are_drawn_at_random(tmp_path: Path) -> None:
    mix, speech_N = mixer(tmp_path / "noise", white(RATE), probability=0.5), torch.from_numpy(white(RATE, 1)).float()
    found = {id: mix(speech_N, str(id), 0) for id in range(60)}
    ratios = [snr_db(speech_N, mixed_N) for mixed_N, noisy in found.values() if noisy]
    assert 15 <= len(ratios) <= 45
    assert 5 <= min(ratios) < 8 < 17 < max(ratios) <= 20
    assert all(torch.equal(mixed_N, speech_N) for mixed_N, noisy in found.values() if not noisy)
    assert all(torch.equal(mix(speech_N, str(id), 0)[0], found[id][0]) for id in reversed(found))
    assert [mix(speech_N, str(id), 1)[1] for id in found] != [noisy for _, noisy in found.values()]


def test_silent_noise_leaves_the_audio_unchanged(tmp_path: Path) -> None:
    mix = mixer(tmp_path / "noise", np.eye(1, 20 * RATE)[0])  # one click, then silence
    speech_N = torch.from_numpy(white(800, 1)).float()
    found = [mix(speech_N, str(id), 0) for id in range(10)]
    assert sum(noisy for _, noisy in found) < 3
    assert all(noisy or torch.equal(mixed_N, speech_N) for mixed_N, noisy in found)
    assert all(mixed_N.isfinite().all() for mixed_N, _ in found)


def test_noise_cache_is_bounded_and_does_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer(tmp_path / "noise", white(RATE))
    for i in range(4):
        sf.write(tmp_path / "noise" / f"{i}.wav", 0.1 * white(RATE, i + 5), RATE)
    config = AugmentConfig(noise=tmp_path / "noise", noise_probability=1.0)
    whole, bounded = (NoiseMixer(config, RATE, 1) for _ in range(2))
    speech_N = torch.from_numpy(white(RATE, 1)).float()
    expected = [whole(speech_N, str(id), 0)[0] for id in range(20)]
    monkeypatch.setattr(asr.data.augment, "MOST_KEPT_SAMPLES", 2 * RATE)
    found = [bounded(speech_N, str(id), 0)[0] for id in range(20)]
    assert all(map(torch.equal, found, expected))
    assert (len(bounded._cache), len(whole._cache)) == (2, 5)


def test_missing_and_unreadable_noise_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=r"no audio files to take as noise$") as caught:
            NoiseMixer(AugmentConfig(noise=folder, noise_probability=0.5), RATE, 1)
        assert str(caught.value).startswith(str(folder))
    mix = mixer(tmp_path / "noise", white(RATE))
    (tmp_path / "noise" / "hum.sph").touch()
    found = NoiseMixer(AugmentConfig(noise=tmp_path / "noise", noise_probability=0.5), RATE, 1).files
    assert [path.name for path in found] == ["hum.sph", "noise.wav"]
    (tmp_path / "noise" / "noise.wav").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"noise\.wav: .*taken as noise"):
        mix(torch.ones(RATE), "a", 0)

"""Count words that Whisper tiny.en writes where nobody speaks, and what suppressing them costs where somebody does.

Non-speech is digital silence, synthetic noise and hum, and real music, as recordings of a minute or more and as clips
of 1 to 10 s.  Speech is used as clips and joined into recordings of a minute.  The music comes from two Debian
packages, which can be downloaded without root:

    apt-get download asterisk-moh-opsound-wav fillets-ng-data
    for p in *.deb; do dpkg-deb -x $p music; done
    python benchmarks/guards.py data/prompts-en/cuts_dev.jsonl.gz --music music

Thresholds were chosen on the part `dev`: some of the music, and noise of one seed.  The part `test` has the other music
and other noise.  docs/guards.md explains the guards.  Shapes: N samples.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from asr.audio import open_audio
from asr.checkpoint import load_model_folder
from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.model.precision import fastest
from asr.pretrained import find_model
from asr.recognizer import Recognizer
from asr.resampling import resample
from asr.vad import load_detector
from benchmarks.script import new_table, run_script
from benchmarks.speech import GAP_S, english_wer, join, sources, texts_of

RATE = 16_000
LONG_S = 60.0
SILENCE_MIN = 10

Part = Literal["dev", "test"]


class Setting(NamedTuple):
    """A name for which protections are enabled."""

    name: str
    guards: bool
    detector: bool


SETTINGS = (
    Setting("raw", guards=False, detector=False),
    Setting("guards", guards=True, detector=False),
    Setting("speech found first", guards=False, detector=True),
    Setting("both", guards=True, detector=True),
)


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English speech.")],
    music: Annotated[Path, typer.Option(help="Folder where the two packages are unpacked.")],
    part: Annotated[Part, typer.Option(help="Part of the noise and music to use.")] = "dev",
    minutes: Annotated[int, typer.Option(help="Minutes of noise, and of hum.", min=1)] = 15,
    beam: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Count words with each protection, with both and with none.

    Example: `python benchmarks/guards.py data/prompts-en/cuts_dev.jsonl.gz --music music --part test`
    """
    seed = {"dev": 0, "test": 2}[part]
    nobody = {
        "digital silence": _silence(),
        "noise": _synthetic(_noise, minutes, seed),
        "hum": _synthetic(_hum, minutes, seed + 1),
        "music": list(_music(music, part)),
    }
    rows = [cut for path in cuts for cut in read_cuts(path) if cut.duration <= LONG_S]
    heard, said = [load_audio(cut, RATE) for cut in rows], [text_of(cut) for cut in rows]
    words = _table(f"Words where nobody speaks, and how many in 10 minutes ({part}, beam {beam})", "minutes")
    rates = _table(f"Word error rate where somebody speaks (beam {beam})", "words")
    for shape, settings in {"recordings": SETTINGS, "clips": [s for s in SETTINGS if not s.detector]}.items():
        recognizers = [_recognizer(setting, beam) for setting in settings]
        for kind, recordings in track(nobody.items(), description=shape, transient=True):
            audio = recordings if shape == "recordings" else _clips(recordings)
            length_min = sum(map(len, audio)) / RATE / 60
            counts = [sum(map(_words, _texts(recognizer, audio))) for recognizer in recognizers]
            cells = [f"{count} ({10 * count / length_min:.1f})" for count in counts]
            words.add_row(f"{kind}, {len(audio)} {shape}", f"{length_min:.1f}", *cells)
        audio, texts = (heard, said) if shape == "clips" else _joined(heard, said)
        cells = [f"{english_wer(texts, _texts(recognizer, audio)):.2f}" for recognizer in recognizers]
        rates.add_row(f"{len(audio)} {shape}", f"{sum(map(_words, texts))}", *cells)
    words.caption = "clips are shorter than a window, so the speech detector is not used on them"
    Console(width=120).print(words, rates)


def _recognizer(setting: Setting, beam: int) -> Recognizer:
    parts = load_model_folder(find_model("whisper-tiny.en"))
    guards = parts.config.decode.guards.model_copy(update={"enabled": setting.guards})
    options = parts.config.decode.model_copy(update={"beam_size": beam, "guards": guards})
    return Recognizer(parts, options, fastest(torch.device("cpu")), load_detector(RATE) if setting.detector else None)


def _table(title: str, amount: str) -> Table:
    return new_table(title, "", amount, *(setting.name for setting in SETTINGS))


def _texts(recognizer: Recognizer, audio: list[Tensor]) -> list[str]:
    numbered = {str(i): x_N for i, x_N in enumerate(audio)}
    return list(texts_of(recognizer.transcribe_sources(sources(numbered, RATE), batch_s=120.0)).values())


def _words(text: str) -> int:
    return sum(any(c.isalnum() for c in word) for word in text.split())


# ---- where nobody speaks --------------------------------------------------------------------------------------


def _silence() -> list[Tensor]:
    """Return two recordings: zeros after a first sample of one 16-bit step (all zeros are refused), and dither."""
    zeros_N = torch.zeros(SILENCE_MIN * 60 * RATE // 2)
    zeros_N[0] = 2.0**-15
    dither_N = torch.randint(-1, 2, zeros_N.shape, generator=torch.Generator().manual_seed(0)) * 2.0**-15
    return [zeros_N, dither_N]


def _synthetic(make: Callable[[np.random.Generator, int], np.ndarray], minutes: int, seed: int) -> list[Tensor]:
    """Return one-minute recordings, each at a random level between -20 and -60 dB relative to full scale."""
    draw = np.random.default_rng(seed)
    recordings = []
    for _ in range(minutes):
        x_N = make(draw, 60 * RATE)
        x_N *= 10 ** (draw.uniform(-60, -20) / 20) / np.sqrt(np.mean(x_N**2))
        recordings.append(torch.from_numpy(x_N.clip(-1, 1)).float())
    return recordings


def _noise(draw: np.random.Generator, n: int) -> np.ndarray:
    """Return white, pink or brown noise or something between; steady, or swelling and fading like wind."""
    x_N = _coloured(draw, n, draw.uniform(0, 2))
    return x_N * (1.2 + np.sin(_phase(draw, n, draw.uniform(0.1, 3)))) if draw.random() < 0.5 else x_N


def _hum(draw: np.random.Generator, n: int) -> np.ndarray:
    """Return mains hum of 50 or 60 Hz with overtones and some noise."""
    base_hz = draw.choice([50, 60])
    x_N = sum(draw.random() / h * np.sin(_phase(draw, n, base_hz * h)) for h in (1, 2, 3, 5, 7, 9))
    return x_N / np.std(x_N) + 10 ** (draw.uniform(-40, -5) / 20) * _coloured(draw, n, 1.0)


def _phase(draw: np.random.Generator, n: int, hz: float) -> np.ndarray:
    return 2 * np.pi * hz * np.arange(n) / RATE + draw.uniform(0, 2 * np.pi)


def _coloured(draw: np.random.Generator, n: int, slope: float) -> np.ndarray:
    """Return noise of variance 1 whose power falls as frequency ** -slope above 20 Hz."""
    spectrum_X = np.fft.rfft(draw.standard_normal(n))
    hz_X = np.fft.rfftfreq(n, 1 / RATE)
    x_N = np.fft.irfft(spectrum_X * np.where(hz_X < 20, 0, np.maximum(hz_X, 20) ** (-slope / 2)), n)
    return x_N / np.std(x_N)


def _music(folder: Path, part: Part) -> Iterator[Tensor]:
    """Yield the music of a part, chosen by a digest of the file name, so that it is the same on every machine."""
    found = (p for kind in ("moh/*.wav", "music/*.ogg") for p in folder.rglob(kind))
    paths = sorted(found, key=lambda path: path.name)
    if not paths:
        raise AsrError(f"{folder}: no music in it; unpack asterisk-moh-opsound-wav and fillets-ng-data there")
    for path in track(paths, description="reading music", transient=True):
        if int(hashlib.sha1(path.name.encode()).hexdigest()[:8], 16) % 2 == (part == "test"):
            audio = open_audio(path)
            yield resample(torch.from_numpy(audio.samples_N), audio.sample_rate_hz, RATE)


# ---- clips and recordings -------------------------------------------------------------------------------------


def _clips(recordings: list[Tensor]) -> list[Tensor]:
    """Cut the same audio into clips of 1 to 10 s."""
    draw = random.Random(0)
    clips: list[Tensor] = []
    for x_N in recordings:
        start = 0
        while start < len(x_N):
            clips.append(x_N[start : start + round(draw.uniform(1, 10) * RATE)])
            start += len(clips[-1])
    return clips


def _joined(clips: list[Tensor], texts: list[str]) -> tuple[list[Tensor], list[str]]:
    """Join clips, 0.5 s apart, into recordings of at least a minute; a shorter remainder is added to the last one."""
    groups: list[list[int]] = [[]]
    length_s = 0.0
    for i, clip_N in enumerate(clips):
        if length_s >= LONG_S:
            groups.append([])
            length_s = 0.0
        groups[-1].append(i)
        length_s += len(clip_N) / RATE + GAP_S
    if len(groups) > 1 and length_s < LONG_S:
        rest = groups.pop()
        groups[-1] += rest
    audio = [join([clips[i] for i in group], RATE) for group in groups]
    return audio, [" ".join(texts[i] for i in group) for group in groups]


if __name__ == "__main__":
    run_script(main)

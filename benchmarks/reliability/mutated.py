"""Broken audio among good: each bad file must give one error line or a text, and good ones the usual texts.

Shapes: N samples.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile import encoded, hostile_audio
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from asr.audio import stream_audio
from asr.errors import AudioError, printable
from benchmarks.reliability import ROOT
from benchmarks.reliability.checks import Figures, tracebacks
from benchmarks.reliability.jobs import make_model
from benchmarks.reliability.kills import asr

RATE = 16_000
MOST_S = 10.0
SIZES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
WRITTEN = {
    "wav": {"format": "WAV"},
    "float.wav": {"format": "WAV", "subtype": "FLOAT"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}
BY_FFMPEG = {"m4a": ["-c:a", "aac"], "mp4": ["-c:a", "aac", "-f", "mp4"], "webm": ["-c:a", "libopus", "-f", "webm"]}

Mutation = Callable[[bytes, random.Random], bytes]


# ---- what is done to a file -----------------------------------------------------------------------------------------


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def behead(data: bytes, draw: random.Random) -> bytes:
    return data[draw.randrange(1, len(data)) :]


def flip(data: bytes, draw: random.Random) -> bytes:
    """Flip up to a hundred bits anywhere or, half of the time, within the first hundred bytes."""
    turned, end = bytearray(data), len(data) if draw.random() < 0.5 else 100
    for _ in range(draw.choice((1, 3, 10, 100))):
        turned[draw.randrange(min(end, len(turned)))] ^= 1 << draw.randrange(8)
    return bytes(turned)


def swap(data: bytes, draw: random.Random) -> bytes:
    """Swap two parts, like pieces of a download in the wrong order."""
    a, b, c, d = sorted(draw.randrange(len(data)) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def zero(data: bytes, draw: random.Random) -> bytes:
    """Write zeros over the header or over a page somewhere."""
    start = draw.choice((0, 0, 4, draw.randrange(len(data))))
    size = min(draw.choice((4, 40, 512, 4096)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def boast(data: bytes, draw: random.Random) -> bytes:
    """Write a huge or impossible number over four bytes of the header, in either byte order."""
    at = draw.randrange(0, min(len(data) - 4, 200))
    number = struct.pack(draw.choice("<>") + "I", draw.choice(SIZES))
    return data[:at] + number + data[at + 4 :]


def repeat(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[: draw.randrange(at, len(data))] + data[at:]


def noise(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(len(data))


def text(data: bytes, draw: random.Random) -> bytes:
    return "".join(f"{number}: not a sound\n" for number in range(draw.randrange(1, 999))).encode()


def empty(data: bytes, draw: random.Random) -> bytes:
    return b""


def keep(data: bytes, draw: random.Random) -> bytes:
    """Change nothing: the file only gets a wrong extension."""
    return data


MUTATIONS: dict[str, Mutation] = {
    **{"cut": cut, "beheaded": behead, "flipped": flip, "swapped": swap, "zeroed": zero, "boasting": boast},
    **{"repeated": repeat, "noise": noise, "text": text, "empty": empty, "misnamed": keep},
}
OFTEN = ("cut", "flipped", "boasting", "zeroed", "swapped")


# ---- files ----------------------------------------------------------------------------------------------------------


def sound(number: int) -> NDArray[np.float32]:
    """Return a seeded sound (N,): tones that come and go, in noise."""
    draw = np.random.default_rng(number)
    time_N = np.arange(round(draw.uniform(0.5, 4.0) * RATE)) / RATE
    tone_N = np.sin(2 * np.pi * draw.uniform(100, 900) * time_N) * (1 + np.sin(2 * np.pi * draw.uniform(1, 6) * time_N))
    return (0.2 * tone_N + 0.05 * draw.normal(size=len(time_N))).astype(np.float32)


def good_files(folder: Path, count: int) -> list[Path]:
    """Write sounds in all formats that this machine can write, in turn."""
    folder.mkdir(parents=True)
    kinds = [*WRITTEN, *(BY_FFMPEG if shutil.which("ffmpeg") else ())]
    paths = []
    for number in range(count):
        kind, samples_N = kinds[number % len(kinds)], sound(number)
        path = folder / f"good-{number:03}.{kind}"
        plain = encoded(samples_N, RATE, **WRITTEN.get(kind, WRITTEN["wav"]))
        path.write_bytes(plain if kind in WRITTEN else _by_ffmpeg(plain, path, BY_FFMPEG[kind]))
        paths.append(path)
    return paths


def _by_ffmpeg(wav: bytes, path: Path, options: list[str]) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", "-i", "pipe:0", *options, str(path)]
    subprocess.run(command, input=wav, check=True)
    return path.read_bytes()


def bad_files(folder: Path, good: list[Path], count: int, seed: int) -> list[Path]:
    """Write `count` broken files: those of the tests, then mutations of good ones, some with a wrong extension."""
    folder.mkdir(parents=True)
    # Not the file of 4 GB: it is a valid recording of 74 hours of silence, which would be transcribed to its end.
    paths = [path for path, _ in hostile_audio(folder) if path.name != "huge.wav"]
    (folder / "huge.wav").unlink()
    draw = random.Random(f"{seed} audio")
    names = [*MUTATIONS, *OFTEN, *OFTEN]
    for number in range(len(paths), count):
        name, source = draw.choice(names), draw.choice(good)
        data = MUTATIONS[name](source.read_bytes(), draw)
        kind = draw.choice(good).suffix if name == "misnamed" or draw.random() < 0.2 else source.suffix
        path = folder / f"{number:04}-{name}-{source.suffix[1:]}{kind}"
        path.write_bytes(data)
        paths.append(path)
    return paths[:count]


# ---- the trial ------------------------------------------------------------------------------------------------------


def transcribe_broken(scratch: Path, count: int, seed: int, console: Console) -> Figures:
    """Transcribe broken files among good ones, and the good ones alone."""
    figures, began = Figures("broken audio", count), time.monotonic()
    model = make_model(scratch / "model")
    good = good_files(scratch / "good", max(10, count // 10))
    bad = bad_files(scratch / "bad", good, count, seed)
    mixed = [*good, *bad]
    random.Random(seed).shuffle(mixed)
    alone, _, status = _transcribe(model, good)
    if status != 0 or len(alone) != len(good):
        figures.problems.append(f"good files alone: exit status {status}, {len(alone)} texts of {len(good)}")
    texts, told, status = _transcribe(model, mixed)
    figures.made = len(bad)
    figures.counts["good files among them"] = len(good)
    figures.counts["decoded all the same"] = sum(str(path) in texts for path in bad)
    figures.problems += judged(bad, texts, told, status)
    figures.problems += [
        f"{path}: its text differs from that without broken files"
        for path in map(str, good)
        if texts.get(path) != alone[path]
    ]
    slowest_s = max((_seconds(path), path.name) for path in track(mixed, "timing", console=console, transient=True))
    figures.counts["slowest file, ms"] = round(1000 * slowest_s[0])
    if slowest_s[0] > MOST_S:
        figures.problems.append(f"{slowest_s[1]}: took {slowest_s[0]:.1f} s")
    figures.wall_s = time.monotonic() - began
    return figures


def judged(bad: list[Path], texts: dict[str, str], told: str, status: int) -> list[str]:
    """Return what `asr transcribe` did wrong with broken files, from its texts by file, stderr and exit status."""
    problems, lines = tracebacks(told), told.splitlines()
    stray = [line for line in lines if not line.startswith("asr: ")]
    problems += [f"not an error line of asr: {line!r}" for line in stray]
    failed = 0
    for path in bad:
        naming = [line for line in lines if line.startswith(f"asr: {printable(path)}: ") and "length cap" not in line]
        failed += str(path) not in texts
        if len(naming) != (str(path) not in texts):
            problems.append(f"{printable(path)}: {len(naming)} lines, {'a' if str(path) in texts else 'no'} text")
    if status != (1 if failed else 0):
        problems.append(f"exit status {status} though {failed} files failed")
    return problems


def _transcribe(model: Path, paths: list[Path]) -> tuple[dict[str, str], str, int]:
    """Return the texts by path, stderr and the exit status."""
    words = asr("transcribe", *paths, "--model", model, "--format", "json")
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["id"]: row["text"] for row in rows}, done.stderr, done.returncode


def _seconds(path: Path) -> float:
    """Return how long it takes to read a file in the way that transcription does."""
    began = time.monotonic()
    try:
        with stream_audio(path) as stream:
            for _ in stream:
                pass
    except AudioError:
        pass
    return time.monotonic() - began

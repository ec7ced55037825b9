"""Broken audio among good: each bad file must give one error line or a text, and good ones the usual texts.

Shapes: N samples.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, NamedTuple

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
HANGS_S = 300.0  # after so long without a line, a command is killed
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


class Done(NamedTuple):
    """What `asr transcribe` gave: texts by path, stderr, exit status (None: it hung) and longest wait between lines."""

    texts: dict[str, str]
    told: str
    status: int | None
    wait_s: float


def transcribe_broken(scratch: Path, count: int, seed: int, console: Console) -> Figures:
    """Transcribe broken files among good ones, and the good ones alone."""
    figures, began = Figures("broken audio", count), time.monotonic()
    model = make_model(scratch / "model")
    good = good_files(scratch / "good", max(10, count // 10))
    bad = bad_files(scratch / "bad", good, count, seed)
    mixed = [*good, *bad]
    random.Random(seed).shuffle(mixed)
    alone, among = _transcribe(model, good), _transcribe(model, mixed)
    if alone.status != 0 or len(alone.texts) != len(good):
        figures.problems.append(
            f"good files alone: exit status {alone.status}, {len(alone.texts)} of {len(good)} texts"
        )
    figures.made = len(bad)
    figures.counts["good files among them"] = len(good)
    figures.problems += judged(bad, *among[:3])
    figures.problems += [
        f"{path}: its text differs from that without broken files"
        for path in map(str, good)
        if among.texts.get(path) != alone.texts.get(path)
    ]
    heard = {path: _heard(path) for path in track(mixed, "timing", console=console, transient=True)}
    as_good = {heard[path][1] for path in good}
    decoded = [path for path in bad if str(path) in among.texts]
    figures.counts["named"] = len(bad) - len(decoded)
    figures.counts["decoded to the very samples of a good file"] = sum(heard[path][1] in as_good for path in decoded)
    others = [path for path in decoded if heard[path][1] not in as_good]
    figures.counts["decoded to other samples"] = len(others)
    figures.counts |= Counter(sorted(map(kind_of, others)))  # of these
    slowest_s, slowest = max((heard[path][0], path.name) for path in mixed)
    figures.counts["slowest file, ms"] = round(1000 * slowest_s)
    figures.counts["longest wait between lines, ms"] = round(1000 * among.wait_s)
    if slowest_s > MOST_S:
        figures.problems.append(f"{slowest}: took {slowest_s:.1f} s")
    if among.wait_s > MOST_S:
        figures.problems.append(f"asr transcribe wrote no line for {among.wait_s:.1f} s")
    figures.wall_s = time.monotonic() - began
    return figures


def kind_of(bad: Path) -> str:
    """Return how a broken file was made, and from which format: "flipped wav"."""
    number, *made = bad.name.split(".")[0].split("-")
    return " ".join(made) if number.isdigit() else "from the tests"


def judged(bad: list[Path], texts: dict[str, str], told: str, status: int | None) -> list[str]:
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
    if status is None:
        problems.append(f"no line for {HANGS_S:g} s after {len(texts)} texts and {len(lines)} error lines: killed")
    elif status != (1 if failed else 0):
        problems.append(f"exit status {status} though {failed} files failed")
    return problems


def _transcribe(model: Path, paths: list[Path]) -> Done:
    words = asr("transcribe", *paths, "--model", model, "--format", "json")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stderr is not None
    rows, told, wait_s, hung = waited(process.stdout, process.stderr, HANGS_S)
    if hung:
        process.kill()
    status = process.wait()
    texts = {row["id"]: row["text"] for row in map(json.loads, rows)}
    return Done(texts, "".join(told), None if hung else status, wait_s)


def waited(out: IO[str], err: IO[str], hangs_s: float) -> tuple[list[str], list[str], float, bool]:
    """Read both streams to their ends, or until neither gives a line for `hangs_s` seconds.

    Returns the lines of each, the longest wait from one line to the next, and whether it was given up.
    """
    lines: SimpleQueue[tuple[int, str | None]] = SimpleQueue()

    def pass_on(stream: Iterable[str], number: int) -> None:
        for line in stream:
            lines.put((number, line))
        lines.put((number, None))

    for number, stream in enumerate((out, err)):
        Thread(target=pass_on, args=(stream, number), daemon=True).start()
    found: tuple[list[str], list[str]] = [], []
    ends, longest_s, before = 0, 0.0, time.monotonic()
    while ends < 2:
        try:
            number, line = lines.get(timeout=hangs_s)
        except Empty:
            return *found, longest_s, True
        if line is None:
            ends += 1
            continue
        now = time.monotonic()
        if any(found):  # the first line also waits for the program and the model to be loaded
            longest_s = max(longest_s, now - before)
        before = now
        found[number].append(line)
    return *found, longest_s, False


def _heard(path: Path) -> tuple[float, bytes]:
    """Return how long it takes to read a file in the way that transcription does, and a digest of its samples."""
    digest, began = hashlib.sha256(), time.monotonic()
    try:
        with stream_audio(path) as stream:
            for part in stream:
                digest.update(part.tobytes())
    except AudioError:
        digest.update(b"not decoded")
    return time.monotonic() - began, digest.digest()

"""Long recordings cut into windows: nothing is lost, repeated or too long, whatever the blocks that come in."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.windows import QuietWindows, SpeechWindows, Window, WindowMaker

RATE = 1000


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def same(ones: Iterable[Window], others: Iterable[Window]) -> bool:
    """Return whether two makers gave the same windows."""
    return all(
        one is not None and two is not None and one.start_s == two.start_s and torch.equal(one.samples_N, two.samples_N)
        for one, two in itertools.zip_longest(ones, others)
    )


def spans(windows: Iterable[Window], rate: int = RATE) -> list[tuple[int, int]]:
    """Return where windows start and end, in samples."""
    starts = [(round(window.start_s * rate), len(window.samples_N)) for window in windows]
    return [(start, start + length) for start, length in starts]


class Told:
    """A detector with given probabilities, which yields those of the frames that have come in completely."""

    def __init__(self, prob_T: Iterable[float], frame_s: float, rate: int = RATE) -> None:
        self.prob_T, self.frame_s, self.rate = torch.tensor(list(prob_T)), frame_s, rate

    def __call__(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        seen = given_T = 0
        for block_N in blocks:
            seen += len(block_N)
            ready = int(seen / (self.frame_s * self.rate))
            yield self.prob_T[given_T:ready]
            given_T = ready
        yield self.prob_T[given_T:]


# --- quiet places -------------------------------------------------------------------------------------


def split_at_quiet(audio_N: Tensor, rate: int, window_s: float) -> list[Tensor]:
    """Cut by the rule of QuietWindows a recording that is in memory as a whole."""
    most, hop = max(2, round(window_s * rate)), max(1, round(0.02 * rate))
    windows = []
    while len(audio_N) > most:
        start = most * 2 // 3
        energy_T = audio_N[start:most].square().unfold(0, min(10 * hop, most - start), hop).mean(1)
        cut = start + int(energy_T.argmin()) * hop + min(10 * hop, most - start) // 2
        windows.append(audio_N[:cut])
        audio_N = audio_N[cut:]
    return [*windows, audio_N]


@given(
    n=st.integers(1, 3000),
    window=st.integers(1, 700),
    block=st.sampled_from([7, 37, 400, 5000]),
    seed=st.integers(0, 9),
)
def test_quiet_windows_do_not_depend_on_the_block_size(n: int, window: int, block: int, seed: int) -> None:
    rate = 100
    audio_N = noise(n, seed)
    windows = list(QuietWindows(rate, window / rate)(audio_N.split(block)))
    assert torch.equal(torch.cat([w.samples_N for w in windows]), audio_N)
    assert all(0 < len(w.samples_N) <= max(2, window) for w in windows)
    expected = split_at_quiet(audio_N, rate, window / rate)
    starts = itertools.accumulate((len(part) for part in expected), initial=0)
    assert same(windows, [Window(start / rate, part) for start, part in zip(starts, expected, strict=False)])


def test_recording_is_cut_at_the_quiet_place() -> None:
    audio_N = noise(5 * RATE)
    audio_N[1600:1850] *= 0.01
    first, *_ = QuietWindows(RATE, 2.0)([audio_N])
    assert 1600 < len(first.samples_N) < 1850


def test_empty_recording_gives_no_windows() -> None:
    for maker in (QuietWindows(RATE, 1.0), SpeechWindows(RATE, 1.0, Told([], 0.01))):
        assert list(maker([])) == []
        assert list(maker([torch.zeros(0)])) == []


def test_windows_are_yielded_before_the_recording_ends() -> None:
    taken = []

    def blocks() -> Iterator[Tensor]:
        for number in range(1000):
            taken.append(number)
            yield noise(RATE)

    makers: list[WindowMaker] = [
        QuietWindows(RATE, 5.0),
        SpeechWindows(RATE, 5.0, Told([1.0] * 10_000, 0.1)),
        SpeechWindows(RATE, 5.0, Told(([1.0] * 10 + [0.0] * 20) * 1000, 0.1), merge_s=0.5),
    ]
    for maker in makers:
        taken.clear()
        next(maker(blocks()))
        assert len(taken) <= 7


# --- speech -------------------------------------------------------------------------------------------


def told(*runs: tuple[float, float], frame_s: float = 0.01) -> Told:
    """Return a detector of runs of (probability, seconds)."""
    return Told([p for p, seconds in runs for _ in range(round(seconds / frame_s))], frame_s)


def speech(runs: Told, window_s: float = 10.0, **options: float) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return noise and the spans of its windows, where these runs are the speech."""
    audio_N = noise(round(len(runs.prob_T) * runs.frame_s * RATE))
    windows = list(SpeechWindows(RATE, window_s, runs, **{"merge_s": 1.0, "pad_s": 0.2} | options)(audio_N.split(777)))
    for window, (start, end) in zip(windows, spans(windows), strict=True):
        assert torch.equal(window.samples_N, audio_N[start:end])
        assert window.start_s == start / RATE
    return audio_N, spans(windows)


def test_short_pauses_are_kept_and_long_ones_left_out() -> None:
    _, found = speech(told((0, 3), (1, 1), (0, 0.9), (1, 1), (0, 1.1), (1, 1), (0, 3)))
    assert found == [(2800, 6100), (6800, 8200)]


def test_padding_stops_at_the_recordings_ends_and_the_next_window() -> None:
    _, found = speech(told((0, 0.1), (1, 1), (0, 0.3), (1, 1), (0, 0.05)), merge_s=0.0)
    assert found == [(0, 1300), (1300, 2450)]


def test_short_bursts_are_not_speech() -> None:
    _, found = speech(told((0, 1), (1, 0.25), (0, 2), (1, 0.26), (0, 2)), merge_s=0)
    assert found == [(3050, 3710)]


def test_short_gaps_are_not_silence() -> None:
    _, found = speech(told((0, 1), (1, 1), (0, 0.1), (1, 1), (0, 0.11), (1, 1), (0, 1)), merge_s=0, pad_s=0)
    assert found == [(1000, 3100), (3210, 4210)]


def test_speech_starts_and_ends_at_different_thresholds() -> None:
    _, found = speech(told((0.49, 1), (0.5, 1), (0.36, 1), (0.34, 1), (0.36, 1), (0.49, 1)), merge_s=0)
    assert found == [(800, 3200)], "starts at 0.5, goes on at 0.36, ends at 0.34 and does not start again at 0.36"


def test_long_speech_is_cut_in_the_longest_pause_of_the_last_third() -> None:
    early, late = [(1, 2), (0, 0.9), (1, 4), (0, 0.3)], [(1, 1), (0, 0.4), (1, 0.9), (0, 0.2), (1, 3.1), (0, 2)]
    _, found = speech(told(*early, *late))
    assert found == [(0, 8400), (8400, 13000)]


def test_long_speech_without_such_a_pause_is_cut_in_the_last_pause() -> None:
    _, found = speech(told((1, 2), (0, 0.9), (1, 1), (0, 0.3), (1, 9), (0, 2)))
    assert found == [(0, 4050), (4050, 13400)]


def test_cut_in_a_pause_reaching_beyond_the_window_stays_within_it() -> None:
    _, found = speech(told((0, 0.3), (1, 6), (0, 3.5), (1, 1)), window_s=8.0, merge_s=4.0, pad_s=3.5)
    assert found == [(0, 8000), (8000, 10800)]


def test_long_speech_without_any_pause_is_cut_at_the_quietest_place() -> None:
    runs = told((1, 25), (0, 2))
    audio_N = noise(27 * RATE)
    audio_N[8000:8200] *= 0.01
    windows = list(SpeechWindows(RATE, 10.0, runs)(audio_N.split(777)))
    first, *others = spans(windows)
    assert first == (0, pytest.approx(8100, abs=10))
    assert [start for start, _ in others] == [end for _, end in [first, *others[:-1]]]
    assert others[-1][1] == 25200


def test_remainder_of_cut_speech_is_kept_however_short() -> None:
    runs = told((1, 10.1), (0, 2))
    audio_N = noise(12 * RATE + 100)
    audio_N[9900:] *= 0.01
    _, second = spans(SpeechWindows(RATE, 10.0, runs)([audio_N]))
    assert second[1] == 10300


def regions(runs: Told, n: int) -> list[tuple[int, int]]:
    """Return the spans of speech, in samples, by the rule that SpeechWindows documents."""
    found, start, quiet = [], None, None
    for i, p in enumerate(runs.prob_T.tolist()):
        here = round(i * (runs.frame_s * RATE))
        if p >= 0.5:
            start, quiet = here if start is None else start, None
        elif start is not None and (p < 0.35 or quiet is not None):
            quiet = here if quiet is None else quiet
            if here - quiet >= 100:
                found.append((start, quiet))
                start = quiet = None
    if start is not None:
        found.append((start, n))
    return [(start, end) for start, end in found if end - start > 250]


RUNS = st.lists(st.tuples(st.sampled_from([0.0, 0.4, 0.9]), st.integers(1, 60)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(
    runs=RUNS,
    frame_ms=st.sampled_from([10.0, 32.0, 31.7]),
    window=st.sampled_from([800, 1333, 3000, 10**6]),
    merge=st.sampled_from([0, 150, 700]),
    pad=st.sampled_from([0, 50, 200, 350]),
    block=st.sampled_from([97, 999, 100_000]),
)
def test_all_speech_is_in_exactly_one_window(
    runs: list[tuple[float, int]], frame_ms: float, window: int, merge: int, pad: int, block: int
) -> None:
    detector = Told([p for p, count in runs for _ in range(count)], frame_ms / 1000)
    n = math.ceil(len(detector.prob_T) * frame_ms)
    audio_N = noise(n)
    maker = SpeechWindows(RATE, window / RATE, detector, merge_s=merge / RATE, pad_s=pad / RATE)
    windows = list(maker(audio_N.split(block)))
    assert same(windows, maker([audio_N]))
    found, wanted = spans(windows), regions(detector, n)
    covered_N = torch.zeros(n)
    for window_N, (start, end) in zip(windows, found, strict=True):
        assert start < end <= start + window
        assert torch.equal(window_N.samples_N, audio_N[start:end])
        covered_N[start:end] += 1
        assert any(one < end and start < two for one, two in wanted), "a window has no speech"
    assert all(covered_N[start:end].eq(1).all() for start, end in wanted), "speech is in no window, or in two"
    assert found == sorted(found)
    longest = max(merge, pad) + math.ceil(frame_ms)
    for (_, end), (start, _) in itertools.pairwise(wanted) if n <= window else ():
        if start - end > longest:
            assert covered_N[end : end + pad].all()
            assert not covered_N[end + pad : start - pad].any(), "a long pause is in a window"


# --- memory -------------------------------------------------------------------------------------------

CONSUMER = """
import json, resource, sys
import torch
from asr.audio import stream_audio
from asr.resampling import regroup, resample_blocks
from asr.windows import QuietWindows, SpeechWindows

class Loud:
    frame_s = 0.032
    def __call__(self, blocks):
        for block_N in regroup(blocks, 512 * 500):
            block_N = torch.nn.functional.pad(block_N, (0, -len(block_N) % 512))
            yield (block_N.view(-1, 512).square().mean(1) > 1e-4).float()

seconds = []
for maker in (QuietWindows(16000, 30.0), SpeechWindows(16000, 30.0, Loud())):
    with stream_audio(sys.argv[1]) as stream:
        blocks = map(torch.from_numpy, stream)
        windows = maker(resample_blocks(blocks, stream.sample_rate_hz, 16000))
        seconds.append(sum(len(window.samples_N) for window in windows) / 16000)
print(json.dumps({"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def bursts(path: Path, minutes: int) -> Path:
    """Write a recording at 8 kHz with two seconds of noise in each minute; the rest is a hole in a sparse file."""
    samples_N = (noise(16000) * 3000).clamp(-32768, 32767).numpy().astype("<i2")
    soundfile.write(path, samples_N[:0], 8000, subtype="PCM_16", format="WAV")
    size = minutes * 60 * 16000
    head = bytearray(path.read_bytes())
    data = head.rindex(b"data")
    head[4:8], head[data + 4 : data + 8] = (size + data).to_bytes(4, "little"), size.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(head[: data + 8])
        file.truncate(data + 8 + size)
        for minute in range(minutes):
            file.seek(data + 8 + (minute * 60 + 20) * 16000)
            file.write(samples_N.tobytes())
    return path


def test_long_recording_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    used = {}
    for minutes in (10, 120):
        done = subprocess.run(
            [sys.executable, "-c", CONSUMER, str(bursts(tmp_path / "x.wav", minutes))],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        answer = json.loads(done.stdout)
        assert answer["seconds"] == [minutes * 60, pytest.approx(minutes * 2.4, rel=0.05)]
        used[minutes] = answer["mb"]
    assert used[120] - used[10] < 60

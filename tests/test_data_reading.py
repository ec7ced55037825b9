"""Reading cuts: their audio, and broken or hostile manifests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from audit import audited, expect_refused
from hostile import PICKLE
from lhotse import CutSet, Recording
from lhotse.audio import AudioSource
from lhotse.cut import MonoCut, MultiCut
from synthetic import (
    RATE,
    clip,
    cut,
    manifest,
    white,
)

from asr.data.cuts import load_audio
from asr.errors import DataError

# ---- audio ----------------------------------------------------------------------------------------------------


def test_cut_audio_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    """One file holds the channels that the manifest numbers 2 and 0, another one channel 1."""
    samples_NC = np.stack([white(RATE, seed) for seed in range(3)], axis=1).astype(np.float32)
    sf.write(tmp_path / "two.wav", samples_NC[:, [2, 0]], RATE, subtype="FLOAT")
    sf.write(tmp_path / "one.wav", samples_NC[:, 1], RATE, subtype="FLOAT")
    held = {"two.wav": [2, 0], "one.wav": [1]}
    sources = [AudioSource("file", channels, str(tmp_path / name)) for name, channels in held.items()]
    recording = Recording("r", sources, RATE, RATE, 1.0)
    for channel in range(3):
        alone = MonoCut(f"r-{channel}", 0.0, 1.0, channel, recording=recording)
        np.testing.assert_allclose(load_audio(alone, RATE), samples_NC[:, channel], atol=1e-6)
        part = load_audio(alone.truncate(offset=0.25, duration=0.5), RATE)
        np.testing.assert_allclose(part, samples_NC[RATE // 4 : RATE * 3 // 4, channel], atol=1e-6)
    both = MultiCut("r", 0.0, 1.0, [0, 2], recording=recording)
    np.testing.assert_allclose(load_audio(both, RATE), samples_NC[:, [0, 2]].mean(axis=1), atol=1e-6)
    with pytest.raises(DataError, match=r"r: no file of its recording has channel \[0, 1\]"):
        load_audio(MultiCut("r", 0.0, 1.0, [0, 1], recording=recording), RATE)


@pytest.mark.parametrize(("direction", "starts_at"), [("right", 0), ("left", RATE // 2), ("both", RATE // 4)])
def test_padded_cut_is_loaded_with_its_padding(tmp_path: Path, direction: str, starts_at: int) -> None:
    samples_N = white(RATE).astype(np.float32)
    padded = clip(tmp_path / "a.wav", samples_N).pad(duration=1.5, direction=direction)
    expected_N = np.zeros(RATE * 3 // 2, np.float32)
    expected_N[starts_at : starts_at + RATE] = samples_N
    np.testing.assert_array_equal(load_audio(padded, RATE), expected_N)


# ---- manifests ------------------------------------------------------------------------------------------------


def hostile_manifests(folder: Path) -> list[tuple[Path, str]]:
    """Write broken manifests and ones without an audio file; return each with a pattern of its error message."""
    good = cut("x", 1).to_dict()
    no_audio, none = "x: the cut has no audio file", "neither cut nor recording of lhotse"

    def recorded(**changes: object) -> str:
        return json.dumps(good | {"recording": good["recording"] | changes})

    def speed(factor: object) -> dict[str, object]:
        return {"name": "Speed", "kwargs": {"factor": factor}}

    def said(**changes: object) -> str:
        return json.dumps(good | {"supervisions": [good["supervisions"][0] | changes]})

    def from_source(kind: str, source: str) -> str:
        return recorded(sources=[{"type": kind, "channels": [0], "source": source}])

    (far,) = CutSet.from_cuts([cut("x", 1).mix(cut("y", 1), offset_other_by=1e10, allow_padding=True)])
    mixed = far.to_dict()
    files: dict[str, tuple[str | bytes, str]] = {
        "speed.jsonl": (recorded(transforms=[speed("a")]), "its speed is no factor from 0.1 to 10"),
        "still.jsonl": (recorded(transforms=[speed(0)]), "its speed is no factor from 0.1 to 10"),
        "far.jsonl": (json.dumps(far.to_dict()), "10000000001 s are too many for joined clips"),
        "command.jsonl": (from_source("command", "touch EXECUTED"), no_audio),
        "url.jsonl": (from_source("url", "http://127.0.0.1:9/x.wav"), no_audio),
        "memory.jsonl": (from_source("memory", "UklGRg=="), no_audio),
        "missing.jsonl": (from_source("file", "nowhere.wav"), "nowhere.wav: no such file"),
        "pipe.jsonl": (from_source("file", "touch EXECUTED |"), "no such file"),
        "transform.jsonl": (
            recorded(transforms=[{"name": "Volume", "kwargs": {"factor": 2.0}}]),
            "transform Volume",
        ),
        "channel.jsonl": (
            recorded(sources=[{"type": "file", "channels": [3, 1], "source": "x.wav"}], channel_ids=[1, 3]),
            "x: no file of its recording has channel 0",
        ),
        "channels.jsonl": (
            recorded(sources=[{"type": "file", "channels": 7, "source": "x.wav"}], channel_ids=[0, 1]),
            "x: no file of its recording has channel 0",
        ),
        "no-sources.jsonl": (recorded(sources=[], channel_ids=[0]), "x: no file of its recording has channel 0"),
        "no-list.jsonl": (recorded(channel_ids=7), "x: no file of its recording has channel 0"),
        "no-ids.jsonl": (
            recorded(sources=[{"type": "file", "channels": {"0": 0}, "source": "x.wav"}], channel_ids=[0, 1]),
            "x: no file of its recording has channel 0",
        ),
        "narrow.jsonl": (
            recorded(
                sources=[{"type": "file", "channels": [1, 0], "source": str(folder.parent / "good.wav")}],
                channel_ids=[0, 1],
            ),
            r"good\.wav: it holds no channel 1: it has 1, counted from 0",
        ),
        "level.jsonl": (
            json.dumps(CutSet.from_cuts([cut("x", 1).mix(cut("y", 1), snr=10)])[0].to_dict()),
            "a mixed cut with snr is not supported",
        ),
        "no-audio.jsonl": (json.dumps({key: good[key] for key in good if key != "recording"}), no_audio),
        "twice.jsonl": (json.dumps(good) + "\n" + json.dumps(good), "cut 'x' is there twice"),
        "cut-off.jsonl": (json.dumps(good)[:-40], none),
        "other.jsonl": (json.dumps(good["supervisions"][0]), "neither cut nor recording of lhotse"),
        "unknown-type.jsonl": (json.dumps(good | {"type": "os.system"}), none),
        "unknown-key.jsonl": (json.dumps(good | {"__reduce__": "touch EXECUTED"}), none),
        "list.jsonl": ("[1, 2]", none),
        "number.jsonl": (said(text=5), r"number\.jsonl:1: a supervision's text is 5, which is no text"),
        "begin.jsonl": (said(start=None), "a supervision's start is None, which is no number"),
        "start.jsonl": (json.dumps(good | {"start": "x"}), r"start\.jsonl:1: its start is 'x', which is no number"),
        "length.jsonl": (recorded(duration="x"), "the duration of its recording is 'x', which is no number"),
        "source.jsonl": (
            recorded(sources=[{"type": "file", "channels": [0], "source": [1]}]),
            r"the source of its recording is \[1\], which is no text",
        ),
        "recording.jsonl": (json.dumps(good["recording"] | {"duration": "x"}), "its duration not a number"),
        "before.jsonl": (
            json.dumps(mixed | {"tracks": [{**mixed["tracks"][0], "offset": -0.5}]}),
            r"before\.jsonl:1: a track's offset is -0\.5, less than 0",
        ),
        "offset.jsonl": (json.dumps(mixed | {"tracks": [{**mixed["tracks"][0], "offset": "x"}]}), none),
        "trackless.jsonl": (json.dumps(mixed | {"tracks": []}), none),
        "languages.jsonl": (said(language=["en"]), r"a supervision's language is \['en'\], which is no text"),
        "endless.jsonl": (
            json.dumps(good | {"duration": None}),
            "endless.jsonl:1: its id is not text, or its duration not a number",
        ),
        "text.jsonl": ("touch EXECUTED", none),
        "control.jsonl": (json.dumps({"id": "\x1b[31m", "type": "\x1b[31m"}), none),
        "empty.jsonl": ("", "the manifest is empty"),
        "pickle.jsonl": (PICKLE, none),
        "pickle.jsonl.gz": (PICKLE, "pickle.jsonl.gz:1: the file is damaged there"),
        "bytes.jsonl": (bytes(range(256)), none),
        "tag.yaml": ("!!python/object/apply:os.system ['touch EXECUTED']\n", "not a manifest, which ends in"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    patterns = {name: pattern for name, (_, pattern) in files.items()} | {"nowhere.jsonl": "no such manifest"}
    return [(folder / name, pattern) for name, pattern in patterns.items()]


def test_hostile_manifests_are_refused_in_one_line_and_run_nothing(tmp_path: Path) -> None:
    good = manifest(tmp_path / "good.jsonl", [clip(tmp_path / "good.wav", white(RATE))])
    (tmp_path / "bad").mkdir()
    cases = hostile_manifests(tmp_path / "bad")
    setup = (
        "from asr.data.cuts import load_audio, read_cuts\n"
        "def act(path):\n    for cut in read_cuts(path): load_audio(cut, 8000)"
    )
    expect_refused(audited(setup, [*(path for path, _ in cases), good], warm_up=[good]), [*cases, (good, "^$")])

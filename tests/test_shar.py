"""Shar folders: those that lhotse writes are read; malicious and damaged ones give one line."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from audit import audited, expect_refused
from click.testing import CliRunner
from hostile import CANARY, PICKLE, encoded, half, noise
from lhotse.bin.modes.shar import export
from synthetic import RATE, clip, corpus, cut, described, white

from asr.data.augment import derived_random
from asr.data.cuts import load_audio, read_cuts
from asr.data.sources import Shar
from asr.errors import AsrError

Member = tuple[str, bytes]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest of ten clips, and the folder of three shards that lhotse's command makes from it."""
    folder = tmp_path_factory.mktemp("shar")
    path, out = corpus(folder, "train", 10, 1), folder / "shards"
    options = ["--audio", "flac", "--shard-size", "4", "--no-shuffle"]
    done = CliRunner().invoke(export, [*options, str(path), str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    return path, out


def test_shar_folder_has_the_cuts_and_audio_of_its_manifest(written: tuple[Path, Path]) -> None:
    path, out = written
    found, expected = list(read_cuts(out)), list(read_cuts(path))
    assert described(found) == described(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(load_audio(ours, RATE), load_audio(theirs, RATE), atol=2**-15, rtol=0)
        faster, expected_faster = (load_audio(c.perturb_speed(1.1), RATE) for c in (ours, theirs))
        torch.testing.assert_close(faster, expected_faster, atol=1e-3, rtol=0)
        part, expected_part = (load_audio(c.truncate(offset=0.1, duration=0.2), RATE) for c in (ours, theirs))
        torch.testing.assert_close(part, expected_part, atol=2**-15, rtol=0)


def test_shards_are_shuffled_but_stay_whole(written: tuple[Path, Path]) -> None:
    shar = Shar(written[1])
    orders = {tuple(line.cut().id for line in shar.entries(derived_random(seed))) for seed in range(40)}
    shards = [tuple(f"train-{i}" for i in range(*span)) for span in ((0, 4), (4, 8), (8, 10))]
    assert orders == {sum(order, ()) for order in itertools.permutations(shards)}
    assert [line.cut().id for line in shar.lines()] == [f"train-{i}" for i in range(10)]


# ---- hostile folders ------------------------------------------------------------------------------------------


def tar(path: Path, members: Sequence[Member | tarfile.TarInfo]) -> None:
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def shard(
    folder: Path, members: Sequence[Member | tarfile.TarInfo] | bytes, cuts: Sequence[object] | bytes, number: int = 0
) -> None:
    """Write a shard from lists of members and cuts, or from raw bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(members, bytes):
        (folder / f"recording.{number:06d}.tar").write_bytes(members)
    else:
        tar(folder / f"recording.{number:06d}.tar", members)
    data = cuts if isinstance(cuts, bytes) else gzip.compress("".join(json.dumps(c) + "\n" for c in cuts).encode())
    (folder / f"cuts.{number:06d}.jsonl.gz").write_bytes(data)


def hostile_folders(folder: Path) -> list[tuple[Path, str]]:
    """Write damaged and malicious Shar folders; return each with a pattern of its error (^$: none)."""
    secret = folder / "secret.wav"
    clip(secret, white(RATE))
    audio, good = encoded(noise(1, RATE), RATE, format="FLAC"), cut("x", 1).to_dict()
    meta = json.dumps(good["recording"]).encode()
    whole: list[Member] = [("x.flac", audio), ("x.json", meta)]
    bytes_of = folder / "whole.tar"
    tar(bytes_of, whole * 3)
    torn = half(bytes_of.read_bytes())
    expected = r"recording\.000000\.tar"

    def beside(name: str) -> list[Member]:
        return [(f"{name}.flac", audio), (f"{name}.json", meta)]

    def sourced(kind: str, source: str) -> bytes:
        return json.dumps(good["recording"] | {"sources": [{"type": kind, "channels": [0], "source": source}]}).encode()

    cases: dict[str, tuple[Sequence[Member | tarfile.TarInfo] | bytes, Sequence[object] | bytes, str]] = {
        "dots": (beside("../../x"), [good], r"gz:1: cut 'x' stands beside the recording \.\./\.\./x\.flac"),
        "dots-agreed": (beside("../../x"), [good | {"id": "../../x"}], "^$"),  # only an odd name
        "absolute": (beside("/etc/x"), [good], "gz:1: cut 'x' stands beside the recording /etc/x"),
        "link": ([link("x.flac", str(secret)), whole[1]], [good], rf"{expected}: member 'x\.flac': a link"),
        "hardlink": ([link("x.flac", "/etc/passwd", tarfile.LNKTYPE), whole[1]], [good], "a link, a device"),
        "device": ([link("x.flac", "", tarfile.CHRTYPE), whole[1]], [good], "a link, a device"),
        "linked-manifest": ([whole[0], link("x.json", str(secret))], [good], "a link, a device"),
        "torn": (torn, [good] * 3, rf"{expected}: (broken: unexpected end|it ends without its end mark|ends before)"),
        "cut-header": (bytes_of.read_bytes()[: 512 * 3 + 100], [good] * 3, expected),
        "garbage": (os.urandom(20_000), [good], expected),
        "zeros": (bytes(10_240), [good], rf"{expected}: ends before line 1 of cuts"),
        "empty": (b"", [good], expected),
        "gzipped": (gzip.compress(bytes_of.read_bytes()), [good], expected),
        "pickled": (PICKLE, [good], expected),
        "few": (whole, [good] * 2, rf"{expected}: ends before line 2 of cuts\.000000"),
        "many": (whole * 2, [good], rf"{expected}: member 'x\.flac': is not in cuts\.000000"),
        "lonely": (whole[:1], [good], "ends before line 1"),
        "swapped": ([whole[1], whole[0]], [good], "'x.flac' follows, not the manifest of a recording"),
        "unrecorded": (
            [("x.nodata", b""), ("x.nometa", b"")],
            [good],
            "line 1 of cuts.000000.jsonl.gz has no recording",
        ),
        "other-id": (beside("y"), [good], "cut 'x' stands beside the recording y.flac"),
        "garbage-manifest": (
            [whole[0], ("x.json", os.urandom(99))],
            [good],
            "gz:1: the manifest of x.flac is not that of a recording",
        ),
        "deep-manifest": (
            [whole[0], ("x.json", b"[" * 500_000)],
            [good],
            "gz:1: the manifest of x.flac is not that of a recording",
        ),
        "pickled-manifest": (
            [whole[0], ("x.json", PICKLE)],
            [good],
            "gz:1: the manifest of x.flac is not that of a recording",
        ),
        "huge-manifest": (
            [whole[0], ("x.json", bytes(2 << 20))],
            [good],
            r"member 'x\.json': 2097152 bytes, more than",
        ),
        "cut-as-manifest": (
            [whole[0], ("x.json", json.dumps(good).encode())],
            [good],
            "the manifest of x.flac is not that of a recording",
        ),
        "garbage-audio": ([("x.flac", b"torn" * 99), whole[1]], [good], rf"{expected}: x\.flac: .*(decode|read)"),
        "half-audio": ([("x.flac", half(audio)), whole[1]], [good], rf"{expected}: x\.flac: "),
        "no-audio": ([("x.flac", b""), whole[1]], [good], rf"{expected}: x\.flac: is empty"),
        "playlist": ([("x.flac", f"#EXTM3U\n#EXTINF:9,\n{secret}\n".encode()), whole[1]], [good], r"x\.flac: "),
        "command": ([whole[0], ("x.json", sourced("command", f"touch {CANARY}"))], [good], "^$"),
        "elsewhere": ([whole[0], ("x.json", sourced("file", "/nowhere.wav"))], [good], "^$"),
        "torn-lines": (whole, half(gzip.compress(json.dumps(good).encode() * 99)), "gz:1: the file is damaged there"),
        "no-lines": (whole, b"", "recording"),
        "garbage-lines": (whole, os.urandom(999), r"cuts\.000000\.jsonl\.gz:1: the file is damaged"),
        "no-json": (whole, gzip.compress(b"touch EXECUTED\n"), r"jsonl\.gz:1: neither cut nor recording"),
        "list": (whole, [[1, 2]], r"gz:1: neither cut nor recording"),
        "recording-line": (whole, [good["recording"]], r"gz:1: neither cut nor recording"),
        "mixed": (
            whole,
            [{"id": "x", "type": "MixedCut", "tracks": [{"type": "MonoCut", "cut": good, "offset": 0.0}]}],
            "gz:1: a MixedCut has no",
        ),
    }
    for name, (members, cuts, _) in cases.items():
        shard(folder / name, members, cuts)
    patterns = {name: pattern for name, (*_, pattern) in cases.items()}
    shard(folder / "gap", whole, [good])
    shard(folder / "gap", whole, [good | {"id": "y"}], 2)
    shard(folder / "no-tar", whole, [good])
    (folder / "no-tar" / "recording.000000.tar").unlink()
    shard(folder / "half", whole, [good])
    shard(folder / "half", beside("y"), [good | {"id": "y"}], 1)
    (folder / "half" / "recording.000001.tar").unlink()
    (folder / "nothing").mkdir()
    patterns |= {
        "gap": r"gap: cuts\.000001\.jsonl\.gz is missing",
        "no-tar": r"no-tar: no recording\.000000\.tar; write audio, too: lhotse shar export",
        "half": r"half: recording\.000001\.tar is missing",
        "nothing": "nothing: not a Shar folder",
    }
    return [(folder / name, pattern) for name, pattern in patterns.items()]


def test_hostile_folders_execute_and_open_nothing_else_and_are_refused_in_one_line(
    tmp_path: Path, written: tuple[Path, Path]
) -> None:
    cases = hostile_folders(tmp_path)
    setup = (
        "from asr.data.cuts import load_audio, read_cuts\n"
        "def act(path):\n    for cut in read_cuts(path): load_audio(cut, 8000)"
    )
    report = audited(setup, [path for path, _ in cases], warm_up=[written[1]], programs=["ffmpeg"], confined=True)
    expect_refused(report, cases)


def test_missing_archive_is_reported_when_audio_is_loaded(tmp_path: Path, written: tuple[Path, Path]) -> None:
    shutil.copytree(written[1], tmp_path / "moved")
    first = next(iter(read_cuts(tmp_path / "moved")))
    (tmp_path / "moved" / "recording.000000.tar").unlink()
    with pytest.raises(AsrError, match=r"recording\.000000\.tar: no such file"):
        load_audio(first, RATE)

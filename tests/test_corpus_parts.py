"""Corpus manifests, their shards, and the merging of partial results written in any order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from faults import files_of_at_most
from synthetic import RATE, clip, cut, manifest, white

from asr.corpus import Shard, _free_name, read_manifest
from asr.corpus.manifest import CUTS
from asr.corpus.parts import Parts
from asr.data.cuts import load_audio
from asr.errors import DataError
from asr.recognizer.cuts import cut_source
from asr.transcript import Failure, Transcript
from asr.writers import TranscriptWriter, as_line

# ---- partial results ------------------------------------------------------------------------------------------


def test_rows_are_ordered_unique_and_prefer_transcripts_to_failures(tmp_path: Path) -> None:
    parts = Parts(tmp_path, {})

    def leave(span: range, **results: str | None) -> None:
        with parts.writing(span) as write:
            for name, text in results.items():
                place = int(name[1:])
                write(place, Failure("f", "gone") if text is None else Transcript("t", text, 1.0))

    leave(range(0, 6), p1="a", p2=None, p5="b")
    leave(range(4, 9), p4=None, p5="b", p8="c")
    leave(range(2, 5), p2="d", p4=None)
    leave(range(20, 30), p21="e")
    found = list(parts.rows(range(2, 25)))
    assert [(row.position, row.failed) for row in found] == [(2, False), (4, True), (5, False), (8, False), (21, False)]
    assert found[0].json.decode() == as_line(Transcript("t", "d", 1.0))
    assert [row.position for row in parts.rows(range(0, 2))] == [1]


def test_full_disk_names_the_file(tmp_path: Path) -> None:
    parts = Parts(tmp_path, {})

    def fill() -> None:
        with parts.writing(range(9)) as write:
            for position in range(9):
                write(position, Transcript(str(position), "one two three", 1.0))

    with files_of_at_most(200), pytest.raises(OSError, match=r"\.part'"):
        fill()
    assert [row.position for row in parts.rows(range(9))] == [0]


def test_only_overlapping_parts_are_open_at_once(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="only Unix limits open files this way")
    parts = Parts(tmp_path, {})
    for i in range(50):
        with parts.writing(range(i * 10, i * 10 + 15)) as write:
            write(i * 10, Transcript(str(i), "", 1.0))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 100
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 10, limits[1]))
        assert [row.position for row in parts.rows(range(500))] == list(range(0, 500, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_gaps_are_the_ranges_no_span_covers(tmp_path: Path) -> None:
    parts = Parts(tmp_path, {})
    assert list(parts.gaps(range(0, 9))) == [range(0, 9)]
    assert list(parts.gaps(range(3, 3))) == []
    for span in (range(2, 4), range(3, 6), range(5, 5), range(8, 20)):
        parts.finish(span)
    assert list(parts.gaps(range(0, 9))) == [range(0, 2), range(6, 8)]
    assert list(parts.gaps(range(2, 7))) == [range(6, 7)]
    assert list(parts.gaps(range(9, 22))) == [range(20, 22)]
    assert list(parts.gaps(range(2, 6))) == []


def test_concurrent_job_with_other_settings_is_refused(tmp_path: Path) -> None:
    ours, theirs = Parts(tmp_path, {"beam_size": 1}), Parts(tmp_path, {"beam_size": 2})
    with ours.writing(range(3)) as write:
        with pytest.raises(DataError, match=r"beam_size 1 \(now 2\)"), theirs.writing(range(3, 5)):
            pytest.fail("a job with other settings must not write")
        write(1, Failure("b", "gone"))
    assert [row.position for row in ours.rows(range(9))] == [1]
    assert len(list(tmp_path.iterdir())) == 1


# ---- manifests ------------------------------------------------------------------------------------------------


def test_shards_tile_the_manifest_by_duration(tmp_path: Path) -> None:
    lengths_s = [3.0, 0.5, 0.5, 7.0, 1.0, 1.0, 2.0, 0.1, 4.0, 0.9, 2.5, 2.5] * 4
    corpus = read_manifest(manifest(tmp_path / "cuts.jsonl", [cut(f"c{i}", s) for i, s in enumerate(lengths_s)]))
    assert corpus.seconds.tolist() == lengths_s
    for count in (1, 2, 3, 7, 48, 200):
        spans = [corpus.span(Shard(number, count)) for number in range(1, count + 1)]
        assert [i for span in spans for i in span] == list(range(48))
        for span in spans:
            assert abs(sum(lengths_s[i] for i in span) - sum(lengths_s) / count) <= max(lengths_s)
        for shard, span in zip(range(1, count + 1), spans, strict=True):
            inner = [corpus.span(part) for part in Shard(shard, count).split(3)]
            assert [i for part in inner for i in part] == list(span)


GOOD = json.dumps(cut("a", 1.0).to_dict())


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "cuts.jsonl: the manifest is empty"),
        ([GOOD, "{"], "cuts.jsonl:2: neither cut nor recording of lhotse: "),
        ([GOOD, "", "[1]"], "cuts.jsonl:3: neither cut nor recording of lhotse: "),
        ([GOOD, '{"id": "b"}'], "cuts.jsonl:2: neither cut nor recording of lhotse: "),
        (["[" * 100_000], "cuts.jsonl:1: neither cut nor recording of lhotse: "),
        ([GOOD, json.dumps(cut("a", 1.0).supervisions[0].to_dict())], "cuts.jsonl:2: a SupervisionSegment, neither"),
        ([GOOD, GOOD.replace("1.0", "NaN")], "cuts.jsonl:2: its id is not text, or its duration not a number"),
        ([GOOD.replace('"id": "a", "start"', '"id": 7, "start"')], "cuts.jsonl:1: its id is not text"),
        ([GOOD, GOOD.replace('"a"', '"b"'), GOOD], "cuts.jsonl:3: 'a' is there twice; ids must differ"),
    ],
)
def test_unusable_manifest_is_reported_in_one_line(lines: list[str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "cuts.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_unknown_manifest_extension_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cuts.csv").write_text("path,text\n")
    with pytest.raises(DataError, match=r"cuts\.csv: a manifest's name ends in \.txt or \.jsonl or \.jsonl\.gz"):
        read_manifest(tmp_path / "cuts.csv")


@pytest.mark.parametrize("stems", [["a"] * 4, ["a-2", "a", "a", "a-2", "a", "a-2"], ["", "", "-2", ""]])
def test_each_recording_gets_the_first_free_name(stems: list[str]) -> None:
    taken: dict[str, int] = {}
    names: list[str] = []
    for stem in stems:
        tried = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 9))
        expected = next(name for name in tried if name not in names)
        names.append(_free_name(stem, taken))
        assert names[-1] == expected


def test_100_000_equal_names_become_unique() -> None:
    taken: dict[str, int] = {}
    names = {_free_name("a", taken) for _ in range(100_000)}  # takes an hour if each search begins at 1
    assert len(names) == 100_000


def test_cut_ids_cannot_escape_the_output_folder(tmp_path: Path) -> None:
    writer = TranscriptWriter(["txt"], tmp_path / "out")
    for id in (".", "..", ".hidden", "a/../b"):
        writer.write(Transcript(id, id, 1.0), CUTS.stem(id))
    writer.write(Transcript(".", "stem of the id", 1.0))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    names = {"_.txt", "_..txt", "_hidden.txt", "a_.._b.txt", ".txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_damaged_gzip_manifest_is_reported_with_the_line(tmp_path: Path) -> None:
    torn = manifest(tmp_path / "cuts.jsonl.gz", [cut(f"c{i}", 1.0) for i in range(99)])
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz:\d+: the file is damaged there"):
        read_manifest(torn)
    torn.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz:1: the file is damaged there"):
        read_manifest(torn)


def test_only_unchanged_whole_recordings_are_read_in_blocks(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.wav", white(70 * RATE))
    for made, blocks in [
        (whole, 7),
        (whole.truncate(offset=1.0, duration=60.0), 1),
        (whole.perturb_speed(0.9), 1),
        (whole.pad(duration=80.0), 1),
    ]:
        source = cut_source(made, 2 * RATE)
        opened = list(source.open().blocks)
        assert (source.id, source.language, len(opened)) == (made.id, "en", blocks)
        torch.testing.assert_close(torch.cat(opened), load_audio(made, 2 * RATE))

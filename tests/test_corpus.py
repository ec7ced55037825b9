"""A corpus transcribed by many workers: each result is there once, however often workers are killed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Outcome, asr
from lhotse import CutSet, RecordingSet
from models import noises, small_model
from synthetic import clip, cut, manifest

from asr.checkpoint import load_model_folder, save_model_folder
from asr.corpus import Settings, Shard, read_manifest, transcribe_corpus
from asr.loading import load_model
from asr.recognizer.batch import BatchDecoder

IDS = ["a/b/1", "line\nend", "tab\tand\\", "日本", "..", "x" * 300, "a_b_1", "é ü", '"{', "last"]
LOST = 4
Told = list[tuple[str, str, float]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose texts never reach the length cap, which would add a line to stderr."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model_folder(folder, small_model(window_s=4.0, max_tokens_per_s=500.0))
    return folder


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of ten recordings without texts; the audio file of one is missing."""
    folder = tmp_path_factory.mktemp("corpus")
    audio = noises(1.2, 0.3, 0.8, 2.9, 0.5, 0.4, 1.5, 0.6, 0.2, 0.9)
    rows = [
        replace(clip(folder / f"{i}.wav", a.numpy()), id=id) for i, (id, a) in enumerate(zip(IDS, audio, strict=True))
    ]
    for row in rows:
        row.supervisions = []
    (folder / f"{LOST}.wav").unlink()
    return manifest(folder / "cuts.jsonl.gz", rows)


@pytest.fixture(scope="module")
def whole(cuts: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The transcripts of the corpus by a single worker."""
    out = tmp_path_factory.mktemp("whole")
    done = run(cuts, model, out)
    reason = f"{cuts.parent}/{LOST}.wav: no such file"
    assert done.err == [f"asr: {reason}", "asr: 1 of 10 failed; --retry-failed tries them again"]
    assert (done.status, done.out) == (1, f"{out}/hyp.jsonl: 9 of 10 recordings\n")
    assert rows(out / "failed.jsonl") == [{"id": IDS[LOST], "reason": reason}]
    return told(out)


def run(cuts: Path, model: Path, out: Path, *more: object) -> Outcome:
    return asr("transcribe", cuts, "--model", model, "--dtype", "float32", "--out", out, *more)


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the records of a JSONL file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def told(out: Path) -> Told:
    """Return id, text and duration of all transcripts; scores differ by rounding, depending on batches."""
    return [(row["id"], row["text"], row["duration_s"]) for row in rows(out / "hyp.jsonl")]


def positions(out: Path) -> list[int]:
    """Return the sorted numbers of the recordings that workers have written, with repetitions."""
    lines = [line for path in (out / "parts").glob("*.part") for line in path.read_bytes().split(b"\n")[1:-1]]
    return sorted(int(line.split(b"\t")[0]) for line in lines)


def test_one_worker_transcribes_in_the_order_of_the_manifest(cuts: Path, model: Path, whole: Told) -> None:
    assert [id for id, *_ in whole] == [id for i, id in enumerate(IDS) if i != LOST]
    recognizer = load_model(model, dtype="float32")
    for i, (_, text, duration_s) in zip([i for i in range(10) if i != LOST], whole, strict=True):
        alone = recognizer.transcribe(cuts.parent / f"{i}.wav")
        assert (text, duration_s) == (alone.text, alone.duration_s)
    assert len({text for _, text, _ in whole}) > 5


def test_job_depends_on_the_models_own_phrase_list(cuts: Path, tmp_path: Path) -> None:
    names, manifest_ = tmp_path / "names.txt", read_manifest(cuts)
    names.write_text("hello\n")
    save_model_folder(tmp_path / "model", small_model(phrases=names))
    settings = Settings(tmp_path / "model")
    before = settings.job(manifest_)
    assert settings.job(manifest_) == before
    names.write_text("world\n")
    assert settings.job(manifest_) != before


def test_merged_shards_equal_the_result_of_one_worker(cuts: Path, model: Path, whole: Told, tmp_path: Path) -> None:
    first, second, third = (run(cuts, model, tmp_path, "--shard", f"{i}/3") for i in (3, 1, 2))
    assert not first.status
    assert first.out.endswith("; not done yet: 1/3, 2/3\n")
    assert second.out.endswith("; not done yet: 2/3\n")
    assert third.out == f"{tmp_path}/hyp.jsonl: 9 of 10 recordings\n"
    assert third.status == 1
    assert told(tmp_path) == whole
    assert positions(tmp_path) == list(range(10))


def test_unfinished_shards_are_named_and_nothing_is_merged(cuts: Path, model: Path, tmp_path: Path) -> None:
    done = run(cuts, model, tmp_path, "--shard", "30/40")
    count = len(read_manifest(cuts).span(Shard(30, 40)))
    assert done.out.startswith(f"shard 30/40: {count} of {count} recordings; not done yet: ")
    assert "30/40" not in done.out.split(";")[1]
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_finished_work_is_merged_without_loading_the_model(
    cuts: Path, model: Path, whole: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(cuts, model, tmp_path)
    (tmp_path / "hyp.jsonl").unlink()
    (tmp_path / ".writing-x").mkdir()  # as left by a merge that was killed
    monkeypatch.setattr("asr.loading.load_model", lambda *a, **k: pytest.fail("loaded"))
    assert run(cuts, model, tmp_path, "--shard", "2/5").status == 1
    assert told(tmp_path) == whole
    assert not (tmp_path / ".writing-x").exists()


KILLED = """
import os, signal, sys
from asr.cli import main
from asr.recognizer.batch import BatchDecoder
decode, calls = BatchDecoder.__call__, iter(range(100))
def deadly(self, *args, **options):
    if next(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(self, *args, **options)
BatchDecoder.__call__ = deadly
main()
"""


def test_a_killed_worker_loses_no_written_results(cuts: Path, model: Path, whole: Told, tmp_path: Path) -> None:
    words = ["transcribe", cuts, "--model", model, "--dtype", "float32", "--out", tmp_path, "--batch-seconds", 0.1]
    command = [sys.executable, "-c", "import asr.recognizer.pool as p; p.POOL_S = 0.1\n" + KILLED, *map(str, words)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    before = positions(tmp_path)
    assert 0 < len(before) < 10
    for i in (1, 2):  # any number of other workers may take over
        run(cuts, model, tmp_path, "--shard", f"{i}/2")
    assert told(tmp_path) == whole
    assert positions(tmp_path) == list(range(10)), "no recording may be transcribed twice"


def test_truncated_part_files_are_completed(cuts: Path, model: Path, whole: Told, tmp_path: Path) -> None:
    run(cuts, model, tmp_path / "whole")
    (part,) = (tmp_path / "whole" / "parts").glob("*.part")
    data = part.read_bytes()
    head, second = data.index(b"\n"), data.index(b"\n2\t")
    for size in (0, head // 2, head, head + 1, head + 4, second, second + 1, second + 2, second + 20, len(data) - 1):
        out = tmp_path / str(size)
        (out / "parts").mkdir(parents=True)
        (out / "parts" / part.name).write_bytes(data[:size])
        # Zeros, as a power failure may leave them.
        (out / "parts" / "000000000-000000010.00000000.part").write_bytes(b"\0" * 100)
        assert run(cuts, model, out).status == 1
        assert told(out) == whole, size


def test_two_workers_on_one_shard_give_each_result_once(
    cuts: Path, model: Path, whole: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe = Settings.transcribe
    inner: list[Outcome] = []

    def overtaken(self: Settings, *args: Any) -> Any:
        monkeypatch.setattr(Settings, "transcribe", transcribe)
        inner.append(run(cuts, model, tmp_path))
        return transcribe(self, *args)

    monkeypatch.setattr(Settings, "transcribe", overtaken)
    outer = run(cuts, model, tmp_path)
    assert outer.out == inner[0].out
    assert positions(tmp_path) == sorted([*range(10)] * 2)
    assert told(tmp_path) == whole


def test_ctrl_c_keeps_finished_results(
    cuts: Path, model: Path, whole: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, calls = BatchDecoder.__call__, iter(range(100))

    def interrupted(self: BatchDecoder, *args: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return decode(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("asr.recognizer.pool.POOL_S", 0.1)
        patch.setattr(BatchDecoder, "__call__", interrupted)
        stopped = run(cuts, model, tmp_path)
    assert (stopped.status, stopped.out) == (130, "")
    assert stopped.err[-2:] == ["asr: the same command goes on where this one left off", "asr: stopped"]
    assert 0 < len(positions(tmp_path)) < 10
    run(cuts, model, tmp_path)
    assert told(tmp_path) == whole


def test_two_worker_processes_on_one_machine(cuts: Path, model: Path, whole: Told, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("hello\nZoë\n")
    words = ["transcribe", cuts, "--model", model, "--dtype", "float32", "--out", tmp_path, "--workers", 2]
    words += ["--hotwords", names, "--hotword-bonus", 0]
    command = [sys.executable, "-m", "asr", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (1, f"{tmp_path}/hyp.jsonl: 9 of 10 recordings\n")
    assert sorted(done.stderr.splitlines()) == [
        f"asr: {cuts.parent}/{LOST}.wav: no such file",
        "asr: 1 of 10 failed; --retry-failed tries them again",
        "asr: phrases: the model's vocabulary cannot write 'Zoë': left out",
    ]
    assert len(list((tmp_path / "parts").glob("*.part"))) == 2
    assert told(tmp_path) == whole


def test_slurm_script_runs_one_shard_per_array_task(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "recipes" / "cluster" / "transcribe.sbatch"
    (tmp_path / "asr").write_text('#!/bin/sh\nprintf "%s\\n" $OMP_NUM_THREADS "$@"\n')
    (tmp_path / "asr").chmod(0o755)
    given = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "64", "SLURM_CPUS_PER_TASK": "4"}
    env = os.environ | given | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    told = [
        subprocess.run(
            ["bash", script, "my cuts.jsonl", "--out", "o"],
            env=env | more,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for more in ({}, {"SHARDS": "100"})
    ]
    words = ["4", "transcribe", "my cuts.jsonl", "--out", "o", "--shard"]
    assert told == [[*words, "3/64"], [*words, "3/100"]]


def test_failures_are_retried_only_on_request(model: Path, tmp_path: Path) -> None:
    there = clip(tmp_path / "there.wav", noises(0.5)[0].numpy())
    late = cut("late", 0.5, path=tmp_path / "late.wav")
    cuts, out = manifest(tmp_path / "cuts.jsonl", [late, there]), tmp_path / "out"
    failed = run(cuts, model, out)
    assert failed.status == 1
    shutil.copy(tmp_path / "there.wav", tmp_path / "late.wav")
    again = run(cuts, model, out)
    assert again == Outcome(1, failed.out, failed.err[1:])
    mended = run(cuts, model, out, "--retry-failed")
    assert mended == Outcome(0, f"{out}/hyp.jsonl: 2 of 2 recordings\n", [])
    assert (out / "failed.jsonl").read_bytes() == b""
    assert [row["id"] for row in rows(out / "hyp.jsonl")] == ["late", "there"]
    assert len({row["text"] for row in rows(out / "hyp.jsonl")}) == 1


def test_resuming_with_another_manifest_model_or_option_is_refused(cuts: Path, model: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out", tmp_path / "names.txt"
    names.write_text("hello\n")
    run(cuts, model, out, "--shard", "1/2", "--hotwords", names)
    before = sorted((out / "parts").iterdir())
    other = manifest(tmp_path / "cuts.jsonl", list(CutSet.from_file(cuts))[:-1])
    parts = load_model_folder(model)
    save_model_folder(tmp_path / "m", parts._replace(config=parts.config.model_copy(update={"normalizer": "none"})))

    def refused(cuts: Path, model: Path, *more: object) -> str:
        done = run(cuts, model, out, "--shard", "2/2", *more)
        assert (done.status, done.out, len(done.err)) == (2, "", 1)
        assert done.err[0].startswith(f"asr: {out}/parts: begun with ")
        assert done.err[0].endswith("; give what it was begun with, or another folder")
        return done.err[0].split("begun with ")[1].split(";")[0]

    assert refused(other, model, "--hotwords", names) == "another manifest"
    assert refused(cuts, tmp_path / "m", "--hotwords", names) == "another model"
    assert refused(cuts, model, "--hotwords", names, "--beam-size", 3) == "beam_size None (now 3)"
    assert refused(cuts, model) == "another phrases"
    names.write_text("world\n")
    assert refused(cuts, model, "--hotwords", names, "--words") == "words False (now True), another phrases"
    assert sorted((out / "parts").iterdir()) == before


def test_work_continues_after_moving_or_unpacking_the_manifest(
    cuts: Path, model: Path, whole: Told, tmp_path: Path
) -> None:
    run(cuts, model, tmp_path / "out", "--shard", "1/2")
    (tmp_path / "x.jsonl").write_bytes(gzip.decompress(cuts.read_bytes()))
    run(tmp_path / "x.jsonl", model, tmp_path / "out", "--shard", "2/2")
    assert told(tmp_path / "out") == whole


def test_a_lost_part_file_is_an_error_and_can_be_redone(cuts: Path, model: Path, whole: Told, tmp_path: Path) -> None:
    for i in (1, 2, 3):
        run(cuts, model, tmp_path, "--shard", f"{i}/3")
    (tmp_path / "hyp.jsonl").unlink()
    next(path for path in (tmp_path / "parts").glob("*.part") if not path.name.startswith("000000000")).unlink()
    lost = run(cuts, model, tmp_path, "--shard", "1/3")
    assert (lost.status, lost.out) == (2, "")
    assert "of 10 is gone, though it was there; transcribe again without a shard" in lost.err[0]
    assert not (tmp_path / "hyp.jsonl").exists()
    run(cuts, model, tmp_path)
    assert told(tmp_path) == whole


def test_lists_of_paths_and_recording_manifests_are_accepted(
    cuts: Path, model: Path, whole: Told, tmp_path: Path
) -> None:
    paths = [cuts.parent / f"{i}.wav" for i in range(10) if i != LOST]
    listed = tmp_path / "all.txt"
    listed.write_bytes(b"\xef\xbb\xbf" + b"".join(f"{path}\r\n\n".encode() for path in paths))
    assert run(listed, model, tmp_path / "l", "--workers", 1).status == 0
    recordings = RecordingSet.from_recordings(c.recording for c in CutSet.from_file(cuts) if c.id != IDS[LOST])
    recordings.to_file(tmp_path / "recordings.jsonl.gz")
    assert run(tmp_path / "recordings.jsonl.gz", model, tmp_path / "r").status == 0
    for found, ids in ((told(tmp_path / "l"), map(str, paths)), (told(tmp_path / "r"), (p.stem for p in paths))):
        assert found == [(id, *of) for id, (_, *of) in zip(ids, whole, strict=True)]


def test_formats_are_written_for_each_recording(cuts: Path, model: Path, whole: Told, tmp_path: Path) -> None:
    for i in (2, 1):
        run(cuts, model, tmp_path, "--format", "txt,srt", "--shard", f"{i}/2")
    stems = ["a_b_1", "line_end", "tab_and\\", "日本", "x" * 240, "a_b_1-2", "é ü", '"{', "last"]
    assert {path.name for path in tmp_path.iterdir() if path.suffix in (".txt", ".srt")} == {
        f"{stem}.{kind}" for stem in stems for kind in ("txt", "srt")
    }
    assert [(tmp_path / f"{stem}.txt").read_text() for stem in stems] == [f"{text}\n" for _, text, _ in whole]
    assert "-->" in (tmp_path / "last.srt").read_text()
    assert any(segment["words"] for row in rows(tmp_path / "hyp.jsonl") for segment in row["segments"])


def test_recordings_with_the_longest_names_have_files_too(model: Path, tmp_path: Path) -> None:
    paths = [tmp_path / folder / f"{'日' * 83}xx.wav" for folder in "ab"]  # 255 bytes
    for path in paths:
        path.parent.mkdir()
        clip(path, noises(0.3)[0].numpy())
    (tmp_path / "all.txt").write_text("".join(f"{path}\n" for path in paths))
    names = [f"{'日' * 80}{number}.json" for number in ("", "-2")]
    for inputs, count in ([tmp_path / "all.txt"], 2), ([tmp_path / "a"], 1), ([paths[1]], 1):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        done = asr("transcribe", *inputs, "--model", model, "--out", out, "--format", "json")
        assert (done.status, done.err) == (0, [])
        assert sorted(path.name for path in out.glob("日*")) == sorted(names[:count])


def test_command_line_mistakes_are_one_line(cuts: Path, model: Path, tmp_path: Path) -> None:
    spoken, out = ["transcribe", cuts, "--model", model], ["--out", tmp_path / "out"]
    for words, says in [
        ([*spoken], f"{cuts}: --out is missing, the folder for its results"),
        ([*spoken, cuts, *out], f"{cuts}: a manifest or list is transcribed alone; leave out the other inputs"),
        ([*spoken, *out, "--shard", "0/2"], "shard 0/2: give K/N, the K-th of N shares, such as 3/8"),
        ([*spoken, *out, "--shard", "3/2"], "shard 3/2: give K/N"),
        ([*spoken, *out, "--shard", "1"], "shard 1: give K/N"),
        ([*spoken, *out, "--format", "doc"], "unknown format 'doc'"),
        (["transcribe", tmp_path / "no.jsonl", *out], "no.jsonl: no such manifest"),
        (["transcribe", "talk.mp3", "--shard", "1/2"], "--shard, --workers and --retry-failed are for one manifest"),
        (["transcribe", "talk.mp3", "--retry-failed"], "--shard, --workers and --retry-failed are for one manifest"),
    ]:
        done = asr(*words)
        assert (done.status, done.out, len(done.err)) == (2, "", 1), words
        assert says in done.err[0]
    assert not (tmp_path / "out" / "parts").exists()


def test_transcribe_corpus_reports_results_failures_and_progress(
    cuts: Path, model: Path, whole: Told, tmp_path: Path
) -> None:
    told_of: list[str] = []
    seconds: list[tuple[float, float]] = []
    report = transcribe_corpus(
        cuts, tmp_path, Settings(model, dtype="float32"), say=told_of.append, on_done=lambda *s: seconds.append(s)
    )
    assert (report.recordings, report.failed, report.unfinished) == (10, 1, ())
    assert report.hypotheses == tmp_path / "hyp.jsonl"
    assert told(tmp_path) == whole
    assert told_of == [f"{cuts.parent}/{LOST}.wav: no such file"]
    assert seconds[-1][0] == pytest.approx(seconds[-1][1])

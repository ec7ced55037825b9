"""The prompts recipe: transcripts, splits, and runs that are killed or repeated."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from prompts_source import (
    DEV,
    MANIFESTS,
    RATE,
    ROOT,
    TEST,
    TRAIN,
    added,
    fails,
    ids,
    manifests,
    reasons,
    run,
    tarball,
    voice,
    wav,
)

from asr.errors import AsrError, DataError
from recipes.clips import Clip, Dropped, check_apart
from recipes.preparing import parse_languages, split_of, whole_folder
from recipes.prompts import corpus
from recipes.prompts import prepare as recipe

SCRIPT = ROOT / "recipes" / "prompts" / "prepare.py"


def test_folder_that_cannot_be_removed_does_not_hide_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: str, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", os.path.basename(path))

    def unpack() -> None:
        with whole_folder(tmp_path / "unpacked") as into:
            into.mkdir()
            (into / "1.wav").touch()
            monkeypatch.setattr("os.unlink", read_only)
            raise AsrError("the archive cannot be unpacked")

    with pytest.raises(AsrError, match="the archive"):
        unpack()
    assert not (tmp_path / "unpacked").exists()


# --- transcripts and splits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("That agent is  logged on.", "That agent is logged on."),
        ("[ascending tones]", ""),
        ("(10 seconds of silence)", ""),
        ("<beep ascending>", ""),
        ("[!] punto esclamativo", ""),
        ("at [@]", "at"),
        ("spazio []", "spazio"),
        ("Точка. [.]", "Точка."),
        ('IAX (note: does not say "2")', "IAX"),
        ("Il [suo] messaggio è stato salvato.", "Il messaggio è stato salvato."),
        ("il tasto cancelletto. (produrre un beep).", "il tasto cancelletto."),
        ("duemila... (data)", "duemila..."),
    ],
)
def test_asides_are_removed_from_the_text(text: str, spoken: str) -> None:
    assert corpus.spoken_text("it", "some-id", text) == spoken


def test_spoken_asides_are_kept() -> None:
    assert corpus.spoken_text("ru", "vm-review-nonurgent", "пометку (статус) «важно»") == "пометку статус «важно»"


def test_transcript_lines_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "core-sounds-it.txt"
    path.write_bytes("\ufeff; Elenco\n\nx: uno: due\n  ; no\ny : tre\r\nx: altro\n".encode())
    texts, dropped = corpus.read_transcripts(path, "it")
    assert {prompt: text.strip() for prompt, text in texts.items()} == {"x": "uno: due", "y": "tre"}
    assert dropped == [Dropped("it", "x", split_of("x"), "duplicate id")]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: b\nno colon here\n", ":2: expected 'id: text'"), (b"a: \xff\n", "not a UTF-8")],
)
def test_malformed_transcripts_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "core-sounds-en.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        corpus.read_transcripts(path, "en")
    assert str(path) in str(caught.value)


def test_damaged_gzip_transcript_is_reported(tmp_path: Path) -> None:
    path, whole = tmp_path / "core-sounds-en.txt.gz", gzip.compress(b"a: b\n" * 1000)
    for damaged in (whole[:12] + b"\xff" * 4 + whole[16:], whole[:-12]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"not a UTF-8 transcript .* fetch the package again"):
            corpus.read_transcripts(path, "en")


def test_oversized_compressed_transcript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "core-sounds-en.txt.gz"
    path.write_bytes(gzip.compress(b"a" * (corpus.MAX_TRANSCRIPT_BYTES + 1)))
    with pytest.raises(DataError, match="larger than"):
        corpus.read_transcripts(path, "en")


def test_ids_belong_to_the_expected_splits() -> None:
    assert {split_of(prompt) for prompt in TRAIN} == {"train"}
    assert {split_of(prompt) for prompt in DEV} == {"dev"}
    assert {split_of(prompt) for prompt in TEST} == {"test"}


# --- from a folder -------------------------------------------------------------------------------------


def test_folder_is_prepared_into_cuts_and_a_report(tmp_path: Path) -> None:
    lines = "silence/1: (1 second)\nbeep: [a tone]\nnowhere: Text.\nempty:\nadded: Again.\n"
    lines += "../../outside: Do not read me.\nletters/at: at [@]\n"
    folder = voice(tmp_path / "s", lines=lines)
    voice(tmp_path / "s", "it")
    for number, name in enumerate(("silence/1", "beep", "empty", "untold", "letters/at")):
        wav(folder / f"{name}.wav", 1000 + number)
    wav(folder.parent.parent / "outside.wav", 999)
    output = run("--languages", "it,en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    assert "nothing is in two splits" in output

    assert ids(tmp_path / "o", "train") == [
        "en/agent-user",
        "en/digits/1",
        "en/letters/at",
        "it/agent-user",
        "it/digits/1",
    ]
    assert ids(tmp_path / "o", "dev") == [f"{language}/{prompt}" for language in ("en", "it") for prompt in DEV]
    assert ids(tmp_path / "o", "test") == [f"{language}/{prompt}" for language in ("en", "it") for prompt in TEST]
    assert reasons(tmp_path / "o") == {
        "silence": ["silence/1"],
        "names a sound": ["beep"],
        "no audio": ["../../outside", "nowhere"],
        "empty text": ["empty"],
        "no text": ["untold"],
        "duplicate id": ["added"],
    }
    assert reasons(tmp_path / "o", "it") == {}

    cut = added(tmp_path / "o")
    (segment,) = cut.supervisions
    assert (segment.text, segment.language, segment.speaker) == ("Say added.", "en", "en_US_f_Allison")
    assert (cut.duration, cut.sampling_rate, cut.num_samples) == (0.1, RATE, 800)
    assert (segment.start, segment.duration, cut.custom) == (0.0, 0.1, None)
    expected_N, _ = soundfile.read(folder / "added.wav", dtype="float32")
    np.testing.assert_array_equal(cut.load_audio()[0], expected_N)


def test_texts_shared_with_train_are_counted(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s", lines="removed: SAY, added\n")
    wav(folder / "removed.wav", 900)
    assert split_of("removed") == "train"
    run("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    (item,) = json.loads((tmp_path / "o" / "prepared.json").read_text())["report"]["languages"]
    assert {split: cell["texts_also_in_train"] for split, cell in item["splits"].items()} == {
        "train": 0,
        "dev": 0,
        "test": 1,
    }


def test_finished_run_does_nothing_and_skips_slow_imports(tmp_path: Path) -> None:
    voice(tmp_path / "s")
    first = run("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    times = [(tmp_path / "o" / name).stat().st_mtime_ns for name in (*MANIFESTS, "prepared.json")]
    # As a script, from another folder, and without slow imports.
    program = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print({'torch', 'lhotse', 'numpy'} & set(sys.modules))\n"
    )
    arguments = ["--languages", "en", "--source", "s", "--out", "o"]
    code = f"import sys; sys.argv = {[str(SCRIPT), *arguments]!r}\n{program}"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("set()\n")
    assert "2 / 0.0" in first
    assert "2 / 0.0" in result.stdout
    assert times == [(tmp_path / "o" / name).stat().st_mtime_ns for name in (*MANIFESTS, "prepared.json")]


def test_changed_inputs_and_outputs_are_noticed(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s")
    arguments = ("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    run(*arguments)
    before = manifests(tmp_path / "o")
    (tmp_path / "o" / MANIFESTS[0]).unlink()
    (tmp_path / "o" / MANIFESTS[1]).write_bytes(b"torn")
    run(*arguments)
    assert manifests(tmp_path / "o") == before
    wav(folder / "added.wav", 700, samples=1600)
    run(*arguments)
    assert added(tmp_path / "o").duration == 0.2
    shutil.rmtree(tmp_path / "s")
    assert "no such folder" in fails(*arguments)


def test_concurrent_run_is_refused(tmp_path: Path) -> None:
    voice(tmp_path / "s")
    with (tmp_path / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "another run" in fails("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path)


# --- splits must be disjoint ---------------------------------------------------------------------------


def test_copies_of_test_audio_are_dropped_from_dev_and_train(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s")
    wav(folder / "added.wav", 600)
    wav(folder / "agent-user.wav", 600, subtype="PCM_24")  # train: other bytes, the same samples
    wav(folder / "astcc-followed-by-the-pound-key.wav", 600)  # dev
    wav(folder / "digits/0.wav", 600)  # test, like the first
    run("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    assert ids(tmp_path / "o", "test") == ["en/added", "en/digits/0"]
    assert ids(tmp_path / "o", "dev") == ["en/agent-incorrect"]
    assert ids(tmp_path / "o", "train") == ["en/digits/1"]
    assert reasons(tmp_path / "o") == {
        "same audio as en/added (test)": ["agent-user", "astcc-followed-by-the-pound-key"]
    }


def test_same_audio_in_two_splits_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = voice(tmp_path / "s")
    shutil.copy(folder / "added.wav", folder / "agent-user.wav")
    monkeypatch.setattr(recipe, "drop_copies", lambda clips: (list(clips), []))
    line = fails("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    assert "leak: the audio of en/added (test) is also in train as en/agent-user" in line
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_group_in_two_splits_or_repeated_id_is_an_error() -> None:
    def clip(language: str, sha256: str) -> Clip:
        return Clip(language, "added", "added", "test", "speaker", "Added.", Path("added.wav"), RATE, 800, sha256)

    with pytest.raises(DataError, match="leak: the group of it/added"):
        check_apart({"train": [clip("en", "a")], "dev": [], "test": [clip("it", "b")]})
    with pytest.raises(DataError, match="'en/added' occurs twice"):
        check_apart({"train": [clip("en", "a"), clip("en", "a")], "dev": [], "test": []})


# --- killed at any point -------------------------------------------------------------------------------

# Forks a run that is killed by SIGKILL at its k-th file operation below `out`, then one that is not killed.
KILLER = """
import os, shutil, signal, sys
from pathlib import Path
import lhotse
from recipes.prompts.prepare import prepare
source, out, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
names = [f"cuts_{split}.jsonl.gz" for split in ("train", "dev", "test")]

def forked(fatal):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0
    def hook(event, arguments):
        nonlocal count
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(out) in str(arguments[0]):
            count += 1
            if count == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    prepare(["en", "ru"], out, source, None)
    os._exit(0)

assert forked(0) == 0
wanted = [(out / name).read_bytes() for name in names]
kills = left = 0
while True:
    shutil.rmtree(out)
    if forked(1 + kills * step) == 0:
        break
    kills += 1
    assert forked(0) == 0
    assert [(out / name).read_bytes() for name in names] == wanted, f"after kill {kills}"
    found = sorted(path.name for path in out.iterdir())
    assert found == [".lock", *names_sorted, "prepared.json", "unpacked"], found
    assert not list((out / "unpacked").glob(".*")), "left over"
print(kills)
""".replace("*names_sorted", "*sorted(names)")


def test_run_killed_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for language in ("en", "ru"):
        tarball(tmp_path / "s" / f"asterisk-core-sounds-{language}-wav-1.6.1.tar.gz", language)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLER, str(tmp_path / "s"), str(tmp_path / "o"), "7"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 10


# --- arguments -----------------------------------------------------------------------------------------


def test_language_list_is_parsed_and_checked() -> None:
    assert parse_languages("ru, en", corpus.VOICES) == ["en", "ru"]
    for text in ("", "en,xx"):
        with pytest.raises(AsrError, match="choose from en,es,fr,it,ru"):
            parse_languages(text, corpus.VOICES)


def test_source_without_the_files_is_reported(tmp_path: Path) -> None:
    line = fails("--languages", "fr", "--source", tmp_path, "--out", tmp_path / "o")
    assert "fr_CA_f_June" in line
    assert "asterisk-core-sounds-fr-wav-1.6.1.tar.gz" in line


def test_help_has_an_example() -> None:
    assert "--languages en,fr" in " ".join(run("--help").split())

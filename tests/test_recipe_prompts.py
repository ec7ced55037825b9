"""The prompts recipe on small sources that the tests write: sine waves, transcripts, archives, a local server."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # recipes are scripts of the repository, not part of the installed package

from asr.errors import AsrError, DataError  # noqa: E402
from recipes.prompts import corpus, fetch, sources  # noqa: E402
from recipes.prompts import prepare as recipe  # noqa: E402

SCRIPT = ROOT / "recipes" / "prompts" / "prepare.py"
RATE = 8000
MANIFESTS = [f"cuts_{split}.jsonl.gz" for split in corpus.SPLITS]
# Two ids of each split.
TRAIN, DEV, TEST = ("agent-user", "digits/1"), ("agent-incorrect", "astcc-followed-by-the-pound-key"), ("added", "digits/0")
PROMPTS = (*TRAIN, *DEV, *TEST)


def wav(path: Path, hertz: float, *, samples: int = 800, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_N = np.arange(samples) / RATE
    # Whole 16-bit steps, so that every subtype holds the same samples.
    steps_N = np.round(8000 * np.sin(2 * np.pi * hertz * time_N))
    soundfile.write(path, steps_N / 32768, RATE, subtype=subtype)


def voice(root: Path, language: str = "en", *, lines: str = "", prompts: tuple[str, ...] = PROMPTS) -> Path:
    """The layout of the Debian packages; every clip sounds different, in every language."""
    folder = root / "usr/share/asterisk/sounds" / corpus.VOICES[language].speaker
    first = 200 + 500 * list(corpus.VOICES).index(language)
    for number, prompt in enumerate(prompts):
        wav(folder / f"{prompt}.wav", first + 10 * number)
    text = "\ufeff; a comment\n\n" + "".join(f"{prompt}: Say {prompt}.\n" for prompt in prompts) + lines
    document = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    document.parent.mkdir(parents=True)
    document.write_bytes(gzip.compress(text.encode()))
    return folder


def tarball(path: Path, language: str = "en", extra: dict[str, bytes] | None = None) -> bytes:
    """A release tarball of one language: everything at its top."""
    folder = voice(path.parent / f"{path.name}.tree", language)
    text = "".join(f"{prompt}: Say {prompt}.\n" for prompt in PROMPTS)
    (folder / f"core-sounds-{language}.txt").write_text(text)
    for name, content in (extra or {}).items():
        (folder / name).write_bytes(content)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    return path.read_bytes()


def run(*arguments: object, status: int = 0) -> str:
    """The command line in this process; its standard output and error."""
    result = CliRunner().invoke(recipe.app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def fails(*arguments: object) -> str:
    """The single line of a run that must end with an error."""
    last = run(*arguments, status=1).strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def manifests(out: Path) -> list[bytes]:
    return [(out / name).read_bytes() for name in MANIFESTS]


def ids(out: Path, split: str) -> list[str]:
    return [json.loads(line)["id"] for line in gzip.open(out / f"cuts_{split}.jsonl.gz")]


def reasons(out: Path, language: str = "en") -> dict[str, list[str]]:
    items = json.loads((out / "prepared.json").read_text())["report"]["languages"]
    dropped = next(item["dropped"] for item in items if item["language"] == language)
    return {reason: sum(by_split.values(), []) for reason, by_split in dropped.items()}


# --- transcripts and splits -----------------------------------------------------------------------------


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
def test_asides_are_not_spoken(text: str, spoken: str) -> None:
    assert corpus.spoken_text("it", "some-id", text) == spoken


def test_asides_that_are_spoken_stay() -> None:
    assert (
        corpus.spoken_text("ru", "vm-review-nonurgent", "пометку (статус) «важно»")
        == "пометку статус «важно»"
    )


def test_transcript_lines(tmp_path: Path) -> None:
    path = tmp_path / "core-sounds-it.txt"
    path.write_bytes("\ufeff; Elenco\n\nx: uno: due\n  ; no\ny : tre\r\nx: altro\n".encode())
    texts, dropped = corpus.read_transcripts(path, "it")
    assert {prompt: text.strip() for prompt, text in texts.items()} == {"x": "uno: due", "y": "tre"}
    assert dropped == [corpus.Dropped("it", "x", "second text of an id")]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a: b\nno colon here\n", ":2: expected 'id: text'"), (b"a: \xff\n", "not a UTF-8")],
)
def test_broken_transcripts_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "core-sounds-en.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        corpus.read_transcripts(path, "en")
    assert str(path) in str(caught.value)


def test_a_transcript_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "core-sounds-en.txt.gz"
    path.write_bytes(gzip.compress(b"a" * (corpus.MAX_TRANSCRIPT_BYTES + 1)))
    with pytest.raises(DataError, match="larger than"):
        corpus.read_transcripts(path, "en")


def test_the_split_of_an_id() -> None:
    assert {corpus.split_of(prompt) for prompt in TRAIN} == {"train"}
    assert {corpus.split_of(prompt) for prompt in DEV} == {"dev"}
    assert {corpus.split_of(prompt) for prompt in TEST} == {"test"}


# --- from a folder --------------------------------------------------------------------------------------


def test_cuts_and_report(tmp_path: Path) -> None:
    lines = "silence/1: (1 second)\nbeep: [a tone]\nnowhere: Text.\nempty:\nadded: Again.\n"
    lines += "../../outside: Do not read me.\nat: at [@]\n"
    folder = voice(tmp_path / "s", lines=lines)
    voice(tmp_path / "s", "it")
    for number, name in enumerate(("silence/1", "beep", "empty", "untold", "at")):
        wav(folder / f"{name}.wav", 1000 + number)
    wav(folder.parent.parent / "outside.wav", 999)
    output = run("--languages", "it,en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    assert "no prompt and no audio stands in two splits" in output

    assert ids(tmp_path / "o", "train") == [
        "en/agent-user",
        "en/at",
        "en/digits/1",
        "it/agent-user",
        "it/digits/1",
    ]
    assert ids(tmp_path / "o", "dev") == [
        f"{language}/{prompt}" for language in ("en", "it") for prompt in DEV
    ]
    assert ids(tmp_path / "o", "test") == [
        f"{language}/{prompt}" for language in ("en", "it") for prompt in TEST
    ]
    assert reasons(tmp_path / "o") == {
        "silence": ["silence/1"],
        "names a sound": ["beep"],
        "no audio": ["../../outside", "nowhere"],
        "empty text": ["empty"],
        "no text": ["untold"],
        "second text of an id": ["added"],
    }
    assert reasons(tmp_path / "o", "it") == {}

    cut = CutSet.from_file(tmp_path / "o" / "cuts_test.jsonl.gz")["en/added"]
    (segment,) = cut.supervisions
    assert (segment.text, segment.language, segment.speaker) == ("Say added.", "en", "en_US_f_Allison")
    assert (cut.duration, cut.sampling_rate, cut.num_samples) == (0.1, RATE, 800)
    assert (segment.start, segment.duration, cut.custom) == (0.0, 0.1, None)
    expected_N, _ = soundfile.read(folder / "added.wav", dtype="float32")
    np.testing.assert_array_equal(cut.load_audio()[0], expected_N)


def test_shared_texts_are_counted(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s", lines="your: SAY, added\n")
    wav(folder / "your.wav", 900)
    assert corpus.split_of("your") == "train"
    run("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    (item,) = json.loads((tmp_path / "o" / "prepared.json").read_text())["report"]["languages"]
    assert {split: cell["texts_also_in_train"] for split, cell in item["splits"].items()} == {
        "train": 0,
        "dev": 0,
        "test": 1,
    }


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    voice(tmp_path / "s")
    first = run("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    times = [(tmp_path / "o" / name).stat().st_mtime_ns for name in (*MANIFESTS, "prepared.json")]
    # As a script, from another folder, and without what makes a start slow.
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


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s")
    arguments = ("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    run(*arguments)
    before = manifests(tmp_path / "o")
    for name in MANIFESTS:  # torn and lost manifests come back as they were
        (tmp_path / "o" / name).write_bytes(b"torn") if name != MANIFESTS[0] else (
            tmp_path / "o" / name
        ).unlink()
    run(*arguments)
    assert manifests(tmp_path / "o") == before
    wav(folder / "added.wav", 700, samples=1600)
    run(*arguments)
    assert CutSet.from_file(tmp_path / "o" / "cuts_test.jsonl.gz")["en/added"].duration == 0.2
    shutil.rmtree(tmp_path / "s")
    assert "no such folder" in fails(*arguments)


def test_two_runs_do_not_meet(tmp_path: Path) -> None:
    voice(tmp_path / "s")
    with (tmp_path / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "another run" in fails("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path)


# --- splits that must not touch ---------------------------------------------------------------------------


def test_copies_leave_the_lower_split(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s")
    wav(folder / "added.wav", 600)
    wav(folder / "agent-user.wav", 600, subtype="PCM_24")  # train: other bytes, the same samples
    wav(folder / "astcc-followed-by-the-pound-key.wav", 600)  # dev
    wav(folder / "digits/0.wav", 600)  # test, as the first
    run("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    assert ids(tmp_path / "o", "test") == ["en/added", "en/digits/0"]
    assert ids(tmp_path / "o", "dev") == ["en/agent-incorrect"]
    assert ids(tmp_path / "o", "train") == ["en/digits/1"]
    assert reasons(tmp_path / "o") == {"same audio as en/added (test)": ["agent-user", "astcc-followed-by-the-pound-key"]}


def test_a_leak_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = voice(tmp_path / "s")
    shutil.copy(folder / "added.wav", folder / "agent-user.wav")
    monkeypatch.setattr(corpus, "drop_copies", lambda clips: (list(clips), []))
    line = fails("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
    assert "leak: the audio of en/added (test) also stands in train as en/agent-user" in line
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_an_id_in_two_splits_fails() -> None:
    def clip(language: str, sha256: str) -> corpus.Clip:
        return corpus.Clip(language, "added", "Added.", Path("added.wav"), RATE, 800, sha256)

    with pytest.raises(DataError, match="leak: the prompt of it/added"):
        corpus.check_apart({"train": [clip("en", "a")], "dev": [], "test": [clip("it", "b")]})
    with pytest.raises(DataError, match="'en/added' stands twice"):
        corpus.check_apart({"train": [clip("en", "a"), clip("en", "a")], "dev": [], "test": []})


# --- killed at any point ------------------------------------------------------------------------------------

# Forks a run that ends with SIGKILL at its k-th action on a file below `out`, then one that is left in peace.
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


def test_killed_anywhere_and_run_again(tmp_path: Path) -> None:
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


# --- archives -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_from_packages(tmp_path: Path) -> None:
    package(tmp_path / "debs")
    run("--languages", "en", "--source", tmp_path / "debs", "--out", tmp_path / "o")
    assert ids(tmp_path / "o", "test") == ["en/added", "en/digits/0"]


def package(folder: Path) -> None:
    """The two Debian packages of English."""
    voice(folder / "tree")
    for name, part in (("asterisk-core-sounds-en-wav", "asterisk"), ("asterisk-core-sounds-en", "doc")):
        root = folder / name
        shutil.copytree(folder / "tree/usr/share" / part, root / "usr/share" / part)
        (root / "DEBIAN").mkdir()
        control = (
            f"Package: {name}\nVersion: 1.6.1-1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
        )
        (root / "DEBIAN/control").write_text(control)
        target = folder / f"{name}_1.6.1-1_all.deb"
        subprocess.run(["dpkg-deb", "-b", str(root), str(target)], check=True, capture_output=True)
        shutil.rmtree(root)
    shutil.rmtree(folder / "tree")


FAKE_APT = """#!/bin/sh
# Knows the packages only once 'update' has filled a list folder of its own.
for word in "$@"; do
  case "$word" in Dir::State::Lists=*) lists="${word#*=}";; update) update=1;; --print-uris) uris=1;; esac
  name="$word"
done
[ -n "$update" ] && { touch "$lists/known"; exit 0; }
[ -n "$lists" ] && [ -e "$lists/known" ] || { echo "E: Unable to locate package $name"; exit 100; }
[ -n "$uris" ] && { echo "'http://x/$name.deb' $name.deb 100 SHA256:0"; exit 0; }
cp "$FAKE_APT_FILES/${name}"_*.deb .
"""


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_apt_without_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "debs")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apt-get").write_text(FAKE_APT)
    (tmp_path / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_APT_FILES", str(tmp_path / "debs"))
    monkeypatch.setattr(sources, "SYSTEM", tmp_path / "nothing")
    (tmp_path / "o/downloads/.part-killed").mkdir(parents=True)
    run("--languages", "en", "--out", tmp_path / "o")
    assert ids(tmp_path / "o", "test") == ["en/added", "en/digits/0"]
    left = sorted(path.name for path in (tmp_path / "o/downloads").iterdir())
    assert left == ["asterisk-core-sounds-en-wav_1.6.1-1_all.deb", "asterisk-core-sounds-en_1.6.1-1_all.deb"]


def test_installed_files_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = voice(tmp_path / "system")
    monkeypatch.setattr(sources, "SYSTEM", tmp_path / "system")
    run("--languages", "en", "--out", tmp_path / "o")
    cut = CutSet.from_file(tmp_path / "o" / "cuts_test.jsonl.gz")["en/added"]
    assert cut.recording.sources[0].source == str(folder / "added.wav")


def test_a_hostile_tarball_writes_nothing(tmp_path: Path) -> None:
    name = "asterisk-core-sounds-en-wav-1.6.1.tar.gz"
    for member in ("../../../escaped.wav", "/tmp/escaped.wav", "link.wav"):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        (tmp_path / "s").mkdir()
        with tarfile.open(tmp_path / "s" / name, "w:gz") as archive:
            info = tarfile.TarInfo(member)
            if member == "link.wav":
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
        line = fails("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")
        assert name in line
        assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "s"]
        assert not list((tmp_path / "o/unpacked").iterdir())


def test_audio_that_is_none_is_named(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s")
    (folder / "added.wav").write_bytes(b"RIFF but no more")
    assert str(folder / "added.wav") in fails(
        "--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o"
    )


# --- the upstream release, from a server on this machine ------------------------------------------------------


class Mirror(ThreadingHTTPServer):
    """Serves `files`; the first `cuts` answers to a tarball break off half way, and `ranges` may be refused."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.ranges = files, 0, True
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/releases"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path.removeprefix("/releases/"))
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.cuts and not self.path.endswith(".sha1"):
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


NAME = "asterisk-core-sounds-en-wav-1.6.1.tar.gz"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "server").mkdir()
    content = tarball(tmp_path / "server" / NAME)
    server = Mirror(
        {NAME: content, f"{NAME}.sha1": f"{hashlib.sha1(content).hexdigest()}  {NAME}\n".encode()}
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def from_mirror(mirror: Mirror, out: Path) -> list[tuple[str, str | None]]:
    """Prepare from the server; the requests for the tarball itself."""
    run("--languages", "en", "--mirror", mirror.url, "--out", out)
    assert ids(out, "test") == ["en/added", "en/digits/0"]
    assert (out / "downloads" / NAME).read_bytes() == mirror.files[NAME]
    assert not (out / "downloads" / f"{NAME}.part").exists()
    return [(path, wanted) for path, wanted in mirror.asked if path.endswith(".gz")]


def test_a_release_from_a_mirror(mirror: Mirror, tmp_path: Path) -> None:
    assert from_mirror(mirror, tmp_path / "o") == [(f"/releases/{NAME}", None)]
    mirror.asked.clear()
    shutil.rmtree(tmp_path / "o/unpacked")
    assert from_mirror(mirror, tmp_path / "o") == []  # the whole file is not fetched twice


def test_a_download_goes_on_where_it_broke_off(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cuts = 1
    half = len(mirror.files[NAME]) // 2
    assert [wanted for _, wanted in from_mirror(mirror, tmp_path / "o")] == [None, f"bytes={half}-"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", ["beginning", "whole", "too long", "of another file"])
def test_what_a_killed_download_left(mirror: Mirror, tmp_path: Path, part: str, ranges: bool) -> None:
    content = mirror.files[NAME]
    left = {
        "beginning": content[:99],
        "whole": content,
        "too long": content + b"x",
        "of another file": b"x" * 99,
    }
    mirror.ranges = ranges
    (tmp_path / "o/downloads").mkdir(parents=True)
    (tmp_path / "o/downloads" / f"{NAME}.part").write_bytes(left[part])
    from_mirror(mirror, tmp_path / "o")


def test_a_mirror_without_checksums(mirror: Mirror, tmp_path: Path) -> None:
    del mirror.files[f"{NAME}.sha1"]
    from_mirror(mirror, tmp_path / "o")


def test_mirrors_that_fail(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files[f"{NAME}.sha1"] = b"0" * 40
    line = fails("--languages", "en", "--mirror", mirror.url, "--out", tmp_path / "o")
    assert "SHA-1" in line
    assert "pass --source DIR" in line
    mirror.files[f"{NAME}.sha1"] = hashlib.sha1(mirror.files[NAME]).hexdigest().encode()
    mirror.cuts = 99
    assert "IncompleteRead" in fails("--languages", "en", "--mirror", mirror.url, "--out", tmp_path / "o")
    assert "Not Found" in fails("--languages", "ru", "--mirror", mirror.url, "--out", tmp_path / "o")
    assert "not an http" in fails("--languages", "ru", "--mirror", "file:///etc", "--out", tmp_path / "o")
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_without_apt_the_release_is_asked_for(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SYSTEM", tmp_path / "nothing")
    monkeypatch.setattr(sources, "MIRROR", mirror.url)
    monkeypatch.setattr(shutil, "which", lambda name, *rest, **more: None)
    run("--languages", "en", "--out", tmp_path / "o")
    assert ids(tmp_path / "o", "test") == ["en/added", "en/digits/0"]
    del mirror.files[NAME]
    line = fails("--languages", "en", "--out", tmp_path / "p")
    assert "no apt here" in line
    assert "pass --source DIR" in line


# --- arguments ------------------------------------------------------------------------------------------------


def test_languages() -> None:
    assert recipe.parse_languages("ru, en") == ["en", "ru"]
    for text in ("", "en,xx"):
        with pytest.raises(AsrError, match="choose from en,es,fr,it,ru"):
            recipe.parse_languages(text)


def test_a_source_without_the_files(tmp_path: Path) -> None:
    line = fails("--languages", "fr", "--source", tmp_path, "--out", tmp_path / "o")
    assert "fr_CA_f_June" in line
    assert "asterisk-core-sounds-fr-wav-1.6.1.tar.gz" in line


def test_help_has_an_example() -> None:
    assert "--languages en,fr" in " ".join(run("--help").split())

"""Atomic writes, and unpacking of good and hostile archives."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from audit import audited, expect_refused
from hostile import CANARY, PICKLE, deb, hostile_archives, tar, zipped
from hypothesis import given, settings
from hypothesis import strategies as st

import asr.files
from asr.errors import ArchiveError, printable
from asr.files import drop_torn_line, extract_archive, json_writer, make_folder, numbered_lines, write_atomically

MEMBERS = (("./a/b/one.wav", b"one" * 50_000), ("a/two.txt", b""), ("three.wav", b"3"))


def found(folder: Path) -> dict[str, bytes]:
    """Return the files under a folder by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- write_atomically ---------------------------------------------------------------------------------


def test_finished_write_replaces_the_file(tmp_path: Path) -> None:
    target = tmp_path / "cuts.jsonl.gz"
    target.write_text("old")
    with write_atomically(target) as temporary:
        assert temporary.name == target.name, "writers choose the format by the suffix"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert found(tmp_path) == {"cuts.jsonl.gz": b"new"}


def test_file_that_a_symbolic_link_points_to_is_replaced(tmp_path: Path) -> None:
    link, big = tmp_path / "cuts.jsonl.gz", tmp_path / "big"
    big.mkdir()
    link.symlink_to("big/data")
    for text in ("old", "new"):
        with write_atomically(link) as temporary:
            assert (temporary.name, temporary.parent.parent) == (link.name, big)
            temporary.write_text(text)
        assert (link.is_symlink(), (big / "data").read_text()) == (True, text)


def test_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"), write_atomically(tmp_path / "pipe"):
        pytest.fail("nothing may be written")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_write_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "model"
    target.write_text("old")

    def write() -> None:
        with write_atomically(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert found(tmp_path) == {"model": b"old"}


def test_write_works_with_the_longest_file_name(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250 + ".yaml")
    with write_atomically(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def killed_while(writing: str, folder: Path) -> None:
    """Run a program that is killed while it writes into a folder."""
    source = f"""
import os, signal
from asr.files import write_atomically
with write_atomically({str(folder / "state")!r}) as temporary:
    {writing}
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == -signal.SIGKILL


def test_leftovers_of_killed_writers_are_removed_but_not_open_writes(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("old")
    killed_while("temporary.write_text('half'); temporary.with_name('.tmpOfALibrary').touch()", tmp_path)
    assert len(found(tmp_path)) == 3, "a killed program cannot clean up"
    with write_atomically(tmp_path / "other") as temporary:
        temporary.write_text("new")
        make_folder(tmp_path)
        assert set(os.listdir(tmp_path)) == {"state", temporary.parent.name}
    assert found(tmp_path) == {"state": b"old", "other": b"new"}


def test_disk_error_names_the_target_file(tmp_path: Path) -> None:
    target = tmp_path / "text.json"
    for named in ((), ("half",)):
        with pytest.raises(OSError, match="No space") as caught, write_atomically(target) as temporary:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *(str(temporary) for _ in named))
        assert caught.value.filename == str(target)
    with pytest.raises(OSError, match="No such file") as caught, write_atomically(target):
        (tmp_path / "another").read_text()
    assert caught.value.filename == str(tmp_path / "another")
    assert found(tmp_path) == {}


@pytest.mark.parametrize(("text", "left"), [("a\nb\nc", "a\nb\n"), ("a\nb\n", "a\nb\n"), ("a", ""), ("", "")])
def test_unfinished_last_line_is_dropped(tmp_path: Path, text: str, left: str) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(text)
    drop_torn_line(path)
    assert path.read_text() == left
    drop_torn_line(tmp_path / "missing")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_json_lines_are_byte_identical_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    written = []
    for folder, time in (("a", 1e9), ("b", 2e9)):
        monkeypatch.setattr("time.time", lambda time=time: time)
        (tmp_path / folder).mkdir()
        with json_writer(tmp_path / folder / name) as write:
            write({"path": "\udcff", "text": "né"})
            write([1])
        written.append((tmp_path / folder / name).read_bytes())
    assert written[0] == written[1]
    lines = [json.loads(line) for _, line in numbered_lines(tmp_path / "a" / name)]
    assert lines == [{"path": "\udcff", "text": "né"}, [1]]


def test_printable_escapes_control_characters_and_keeps_letters() -> None:
    assert printable(Path("речь/ñ 1.wav")) == "речь/ñ 1.wav"
    assert printable("a\nb\x1b[31m\udcff") == "a\\nb\\x1b[31m\\udcff"


# --- good archives ------------------------------------------------------------------------------------


def pack(kind: str, folder: Path) -> Path:
    """Write an archive of MEMBERS."""
    path = folder / f"speech{kind}"
    if kind == ".zip":
        path.write_bytes(zipped(*MEMBERS))
    elif kind == ".deb":
        path.write_bytes(deb(tar(*MEMBERS)))
    else:
        with tarfile.open(path, "w:" + kind.rpartition(".")[2].replace("tar", "")) as archive:
            directory = tarfile.TarInfo("./a")
            directory.type = tarfile.DIRTYPE
            archive.addfile(directory)
            (folder / "member").write_bytes(MEMBERS[0][1])
            archive.add(folder / "member", MEMBERS[0][0])
            archive.addfile(tarfile.TarInfo(MEMBERS[1][0]))
            (folder / "member").write_bytes(MEMBERS[2][1])
            archive.add(folder / "member", MEMBERS[2][0])
            (folder / "member").unlink()
    return path


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".zip", ".deb"])
def test_archives_unpack_to_their_members(tmp_path: Path, kind: str) -> None:
    archive = pack(kind, tmp_path)
    into = tmp_path / "new" / "out"
    files = extract_archive(archive, into)
    assert found(into) == {"a/b/one.wav": MEMBERS[0][1], "a/two.txt": b"", "three.wav": b"3"}
    assert files == [into / "a/b/one.wav", into / "a/two.txt", into / "three.wav"]
    assert os.listdir(into.parent) == ["out"], "the temporary folder is left"


def test_keep_selects_members_by_normalised_name(tmp_path: Path) -> None:
    asked = []

    def keep(name: str) -> bool:
        asked.append(name)
        return name.endswith(".wav")

    files = extract_archive(pack(".deb", tmp_path), tmp_path / "out", keep=keep)
    assert asked == ["a/b/one.wav", "a/two.txt", "three.wav"]
    assert [f.name for f in files] == ["one.wav", "three.wav"]


def test_skipped_members_are_not_checked(tmp_path: Path) -> None:
    archive = tmp_path / "links.tar"
    archive.write_bytes(tar(("evil", "2"), ("../x", b"x"), ("good.wav", b"good"), linkname="/etc"))
    assert extract_archive(archive, tmp_path / "out", keep=lambda name: name.endswith(".wav"))
    assert found(tmp_path / "out") == {"good.wav": b"good"}


def test_modes_and_owners_are_not_restored(tmp_path: Path) -> None:
    archive = tmp_path / "modes.tar"
    archive.write_bytes(tar(("run", b"#!/bin/sh"), mode=0o4777, uid=12345))
    (file,) = extract_archive(archive, tmp_path / "out")
    assert stat.S_IMODE(file.stat().st_mode) & 0o7111 == 0
    assert file.stat().st_uid == os.geteuid()


def test_members_are_added_to_an_existing_folder(tmp_path: Path) -> None:
    into = tmp_path / "out"
    (into / "a").mkdir(parents=True)
    (into / "three.wav").write_text("old")
    (into / "a" / "other").write_text("other")
    extract_archive(pack(".zip", tmp_path), into)
    assert found(into) == {"a/b/one.wav": MEMBERS[0][1], "a/other": b"other", "a/two.txt": b"", "three.wav": b"3"}


def test_symlink_in_the_target_folder_is_not_followed_outside(tmp_path: Path) -> None:
    into, outside = tmp_path / "out", tmp_path / "outside"
    into.mkdir()
    outside.mkdir()
    (into / "a").symlink_to(outside)
    with pytest.raises(ArchiveError, match="leads out of it"):
        extract_archive(pack(".zip", tmp_path), into)
    assert found(outside) == {}
    assert os.listdir(into) == ["a"]


# --- hostile archives ---------------------------------------------------------------------------------


def test_hostile_archives_are_refused_run_nothing_and_leave_nothing(tmp_path: Path) -> None:
    cases = hostile_archives(tmp_path)
    before = {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")}
    setup = "from asr.files import extract_archive\ndef act(path): extract_archive(path, path.parent / 'out')"
    report = audited(setup, [path for path, _ in cases], programs=["dpkg-deb"])
    expect_refused(report, cases)
    for (path, _), message in zip(cases, report.messages, strict=True):
        assert str(path) in message
    assert {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_audit_catches_forbidden_actions(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(PICKLE)
    loads = "import pickle\ndef act(path): pickle.loads(path.read_bytes())"
    report = audited(loads, [bad])
    assert [event.split()[0] for event in report.forbidden] == ["pickle.find_class", "os.system"]
    assert report.left == [CANARY]
    report = audited("import subprocess\ndef act(path): exec('1'); subprocess.run(['true'])", [bad])
    assert [event.split()[0] for event in report.forbidden] == ["compile", "exec", "subprocess.Popen"]
    report = audited(
        "def act(path): open(path.parent / 'other', 'w').close(), open(path).close()", [bad], confined=True
    )
    assert [event.split()[0] for event in report.forbidden] == ["open"]
    report = audited("def act(path): raise ValueError(path)", [bad])
    assert len(report.tracebacks) == 1


def test_unpacking_is_limited_in_size_and_time(tmp_path: Path) -> None:
    for kind in (".zip", ".deb", ".tar.gz"):
        archive = pack(kind, tmp_path)
        with pytest.raises(ArchiveError, match="unpacks to more than 100000 bytes"):
            extract_archive(archive, tmp_path / "out", max_bytes=100_000)
        with pytest.raises(ArchiveError, match="takes longer than 0 s"):
            extract_archive(archive, tmp_path / "out", timeout_s=0)
    assert not (tmp_path / "out").exists()


def test_missing_dpkg_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(".deb", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveError, match="install dpkg"):
        extract_archive(archive, tmp_path / "out")


def test_hanging_dpkg_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(".deb", tmp_path)
    fake = tmp_path / "dpkg-deb"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with pytest.raises(ArchiveError, match="takes longer than"):
        extract_archive(archive, tmp_path / "out", timeout_s=0.2)
    assert started[0].returncode == -9


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from([".tar", ".tar.gz", ".zip"]))
def test_damaged_archives_give_one_error_or_files(
    tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    """Bytes changed at random cause no other exception, no file outside the target and no partial result."""
    generator = random.Random(seed)
    folder = tmp_path_factory.mktemp("damaged")
    members = (("a/one.wav", b"one" * 99), ("two.wav", b"2" * 700))
    data = bytearray({".zip": zipped, ".tar": tar, ".tar.gz": tar}[kind](*members))
    for _ in range(generator.randint(1, 4)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    archive = folder / f"x{kind}"
    archive.write_bytes(gzip.compress(data, 1) if kind == ".tar.gz" else data)
    message, files = "", []
    try:
        files = extract_archive(archive, folder / "out")
    except ArchiveError as error:
        message = str(error)
    assert message.isprintable()
    assert sorted(os.listdir(folder)) == ([archive.name] if message else sorted(["out", archive.name]))
    assert all(f.is_relative_to(folder / "out") and f.is_file() for f in files)


def test_failure_to_move_unpacked_files_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").touch()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(asr.files.archive.os, "replace", full)
    with pytest.raises(ArchiveError, match=r"speech\.zip: cannot be unpacked into .*out: No space left on device"):
        extract_archive(pack(".zip", tmp_path), tmp_path / "out")
    assert found(tmp_path / "out") == {"other": b""}


def test_stored_zip_members_and_folders_are_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "stored.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("d/", b"")
        file.writestr("d/x", b"stored")
    extract_archive(archive, tmp_path / "out")
    assert found(tmp_path / "out") == {"d/x": b"stored"}

"""Sources of the prompts: Debian packages, installed files, archives, and a local server."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirror import Mirror, served, without_proxy
from prompts_source import added, fails, ids, run, tarball, voice

from recipes import fetch
from recipes.prompts import sources

# --- archives ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_debian_packages_are_prepared(tmp_path: Path) -> None:
    package(tmp_path / "debs")
    run("--languages", "en", "--source", tmp_path / "debs", "--out", tmp_path / "o")
    assert ids(tmp_path / "o", "test") == ["en/added", "en/digits/0"]


def package(folder: Path) -> None:
    """Build the two Debian packages of English."""
    voice(folder / "tree")
    for name, part in (("asterisk-core-sounds-en-wav", "asterisk"), ("asterisk-core-sounds-en", "doc")):
        root = folder / name
        shutil.copytree(folder / "tree/usr/share" / part, root / "usr/share" / part)
        (root / "DEBIAN").mkdir()
        control = f"Package: {name}\nVersion: 1.6.1-1\nArchitecture: all\nMaintainer: A <a@b>\nDescription: x\n"
        (root / "DEBIAN/control").write_text(control)
        target = folder / f"{name}_1.6.1-1_all.deb"
        subprocess.run(["dpkg-deb", "-b", str(root), str(target)], check=True, capture_output=True)
        shutil.rmtree(root)
    shutil.rmtree(folder / "tree")


FAKE_APT = """#!/bin/sh
# Knows the packages only after 'update' has filled its own list folder.
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
def test_apt_without_package_lists_is_updated_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_installed_files_are_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = voice(tmp_path / "system")
    monkeypatch.setattr(sources, "SYSTEM", tmp_path / "system")
    run("--languages", "en", "--out", tmp_path / "o")
    cut = added(tmp_path / "o")
    assert cut.recording.sources[0].source == str(folder / "added.wav")


def test_hostile_tarball_writes_nothing(tmp_path: Path) -> None:
    name = "asterisk-core-sounds-en-wav-1.6.1.tar.gz"
    for member in ("../../../escaped.wav", "/escaped.wav", "link.wav"):
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


def test_unreadable_audio_is_named_in_the_error(tmp_path: Path) -> None:
    folder = voice(tmp_path / "s")
    (folder / "added.wav").write_bytes(b"RIFF but no more")
    assert str(folder / "added.wav") in fails("--languages", "en", "--source", tmp_path / "s", "--out", tmp_path / "o")


# --- the upstream release, from a local server ---------------------------------------------------------


NAME = "asterisk-core-sounds-en-wav-1.6.1.tar.gz"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    without_proxy(monkeypatch)
    (tmp_path / "server").mkdir()
    content = tarball(tmp_path / "server" / NAME)
    digest = f"{hashlib.sha1(content).hexdigest()}  {NAME}\n".encode()
    with served({NAME: content, f"{NAME}.sha1": digest}) as server:
        yield server


def from_mirror(mirror: Mirror, out: Path) -> list[tuple[str, str | None]]:
    """Prepare from the server; return the requests for the tarball itself."""
    run("--languages", "en", "--mirror", mirror.url, "--out", out)
    assert ids(out, "test") == ["en/added", "en/digits/0"]
    assert (out / "downloads" / NAME).read_bytes() == mirror.files[NAME]
    assert not (out / "downloads" / f"{NAME}.part").exists()
    return [(path, wanted) for path, wanted in mirror.asked if path.endswith(".gz")]


def test_release_is_fetched_from_a_mirror_once(mirror: Mirror, tmp_path: Path) -> None:
    assert from_mirror(mirror, tmp_path / "o") == [(f"/releases/{NAME}", None)]
    mirror.asked.clear()
    shutil.rmtree(tmp_path / "o/unpacked")
    assert from_mirror(mirror, tmp_path / "o") == []  # the whole file is not fetched twice


def test_interrupted_download_is_resumed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cuts = 1
    half = len(mirror.files[NAME]) // 2
    assert [wanted for _, wanted in from_mirror(mirror, tmp_path / "o")] == [None, f"bytes={half}-"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", ["beginning", "whole", "too long", "of another file"])
def test_leftover_of_a_killed_download_is_completed_or_replaced(
    mirror: Mirror, tmp_path: Path, part: str, ranges: bool
) -> None:
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


def test_mirror_without_checksums_is_accepted(mirror: Mirror, tmp_path: Path) -> None:
    del mirror.files[f"{NAME}.sha1"]
    from_mirror(mirror, tmp_path / "o")


def test_mirror_failures_are_reported(mirror: Mirror, tmp_path: Path) -> None:
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


def test_release_is_fetched_from_the_mirror_without_apt(
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

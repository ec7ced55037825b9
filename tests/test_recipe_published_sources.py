"""Sources of the published corpora: archives on a local server or in a folder."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from mirror import served, without_proxy
from published import TREES, Tree, cuts, run

from asr.errors import AsrError
from recipes.librispeech.prepare import parse_parts


def packed(path: Path, folder: Path, name: str) -> bytes:
    """Pack a folder into a tarball, links as links, and return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=name)
    return path.read_bytes()


def archives(name: str, tree: Tree, into: Path) -> dict[str, bytes]:
    """Return the published archives of a corpus by URL path; AISHELL's holds an archive of each speaker."""
    if name == "librispeech":
        return {
            f"12/{part.name}.tar.gz": packed(into / f"{part.name}.tar.gz", part, f"LibriSpeech/{part.name}")
            for part in tree.folder.iterdir()
        }
    if name == "tedlium":
        top = "TEDLIUM_release-3"
        return {"51/TEDLIUM_release-3.tgz": packed(into / f"{top}.tgz", tree.folder, top)}
    if name == "aishell":
        for split in list((tree.folder / "wav").iterdir()):
            for speaker in split.iterdir():
                packed(tree.folder / "wav" / f"{speaker.name}.tar.gz", speaker, f"{split.name}/{speaker.name}")
            shutil.rmtree(split)
        return {"33/data_aishell.tgz": packed(into / "data_aishell.tgz", tree.folder, "data_aishell")}
    table = tree.folder / "covost_v2.fr_en.tsv"
    content = packed(into / f"{table.name}.tar.gz", table, table.name)
    table.unlink()
    return {f"{table.name}.tar.gz": content}


@pytest.mark.parametrize("name", ["librispeech", "tedlium", "aishell", "covost2"])
def test_archives_are_fetched_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxy(monkeypatch)
    tree = TREES[name](tmp_path / "source")
    files = archives(name, tree, tmp_path / "server")
    if name != "covost2":  # its audio is downloaded by hand
        tree = replace(tree, words=tree.words[2:])
    with served(files) as server:
        run(tree, tmp_path / "o", "--mirror", server.url)
        assert {path for path, _ in server.asked if not path.endswith(".sha1")} == {
            f"/releases/{file}" for file in files
        }
        server.asked.clear()
        shutil.rmtree(tmp_path / "o" / "downloads")
        (tmp_path / "o" / "prepared.json").unlink()
        run(tree, tmp_path / "o", "--mirror", server.url)
        assert not server.asked
    for split, told in tree.texts.items():
        assert {cut.id: cut.supervisions[0].text for cut in cuts(tmp_path / "o", split)} == told
    assert not list((tmp_path / "o").rglob(".part-*"))


@pytest.mark.parametrize("name", ["librispeech", "tedlium", "aishell"])
def test_source_folder_may_hold_archives(name: str, tmp_path: Path) -> None:
    tree = TREES[name](tmp_path / "source")
    archives(name, tree, tmp_path / "packed")
    tree = replace(tree, words=("--source", tmp_path / "packed", *tree.words[2:]))
    run(tree, tmp_path / "o")
    for split, told in tree.texts.items():
        assert {cut.id for cut in cuts(tmp_path / "o", split)} == set(told)


def test_unpacked_speakers_of_another_source_are_not_reused(tmp_path: Path) -> None:
    tree = TREES["aishell"](tmp_path / "source")
    archives("aishell", tree, tmp_path / "packed")
    run(tree, tmp_path / "o")
    shutil.copytree(tmp_path / "source", tmp_path / "other")
    lost = cuts(tmp_path / "o", "train")[0].supervisions[0].speaker
    (tmp_path / "other" / tree.folder.name / "wav" / f"{lost}.tar.gz").unlink()
    (error,) = run(replace(tree, words=("--source", tmp_path / "other")), tmp_path / "o", status=1).splitlines()
    assert error.endswith("/train: is missing")


def test_error_of_a_broken_download_names_the_file_to_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxy(monkeypatch)
    tree = TREES["tedlium"](tmp_path / "source")
    files = {name: content[:-40] for name, content in archives("tedlium", tree, tmp_path / "server").items()}
    with served(files) as server:
        output = run(replace(tree, words=tree.words[2:]), tmp_path / "o", "--mirror", server.url, status=1)
    broken = tmp_path / "o" / "downloads" / "TEDLIUM_release-3.tgz"
    assert output.splitlines()[-1].endswith(f"; if the download is broken, remove {broken} and run this again")


def test_hostile_archive_writes_nothing(tmp_path: Path) -> None:
    tree = TREES["librispeech"](tmp_path / "source")
    archives("librispeech", tree, tmp_path / "packed")
    packed(tmp_path / "packed" / "test-clean.tar.gz", tree.folder / "test-clean", "LibriSpeech/../../test-clean")
    tree = replace(tree, words=("--source", tmp_path / "packed", *tree.words[2:]))
    (error,) = run(tree, tmp_path / "o", status=1).splitlines()
    assert "test-clean.tar.gz: member 'LibriSpeech/../../test-clean/" in error
    assert not list((tmp_path / "o").rglob("*.flac"))
    assert not (tmp_path / "o" / "test-clean").exists()


def test_missing_archives_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxy(monkeypatch)
    tree = TREES["librispeech"](tmp_path / "source")
    with served({}) as server:
        tree = replace(tree, words=tree.words[2:])
        *_, error = run(tree, tmp_path / "o", "--mirror", server.url, status=1).splitlines()
    assert "/releases/12/test-clean.tar.gz: Not Found" in error
    (tmp_path / "empty").mkdir()
    tree = replace(tree, words=("--source", tmp_path / "empty"))
    (error,) = run(tree, tmp_path / "o", status=1).splitlines()
    assert error.endswith("holds neither LibriSpeech/test-clean nor test-clean.tar.gz")


def test_librispeech_parts_are_assigned_to_splits() -> None:
    splits = parse_parts("test-clean, train-clean-5,dev-clean-2")
    assert splits == {"train": ["train-clean-5"], "dev": ["dev-clean-2"], "test": ["test-clean"]}
    with pytest.raises(AsrError, match=r"there is no dev-cleen; choose from train-clean-100"):
        parse_parts("dev-cleen")
    with pytest.raises(AsrError, match="choose a part of train and of test, too"):
        parse_parts("dev-clean")


@pytest.mark.parametrize("name", TREES)
def test_help_has_an_example(name: str, tmp_path: Path) -> None:
    assert f"python recipes/{name}/prepare.py" in run(TREES[name](tmp_path), tmp_path, "--help")

"""Recipes of published corpora on broken trees: what is left out is named, and the rest is prepared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from published import COUNTS, TREES, Tree, cuts, left_out, lines, noise, run

from asr.data.cuts import text_of


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return TREES[request.param](tmp_path / "source")


def spoil_librispeech(tree: Tree) -> dict[str, list[str]]:
    chapter = tree.folder / "train-clean-100/100/7"
    told = chapter / "100-7.trans.txt"
    noise(chapter / "100-7-0009.flac")
    (chapter / "100-7-0001.flac").write_bytes(b"fLaC, but not really")
    (chapter / "100-7-0002.flac").unlink()
    with told.open("ab") as file:
        file.write(b"HELLO THERE\n\n100-7-0003 AGAIN\n100-7-0010\n100-7-0011 \xff\n../../x-1-2 OUT\n")
    return {
        "not in the form 'SPEAKER-CHAPTER-NUMBER TEXT'": [f"{told}:5", f"{told}:10"],
        "duplicate id": [f"100-7-0003 ({told}:7)"],
        "empty text": [f"100-7-0010 ({told}:8)"],
        "not UTF-8": [f"100-7-0011 ({told}:9)"],
        "no audio": [f"100-7-0002 ({told}:3)"],
        "no text": [str(chapter / "100-7-0009.flac")],
        "*": [f"100-7-0001 ({told}:2)"],
    }


def spoil_aishell(tree: Tree) -> dict[str, list[str]]:
    told, speaker = tree.folder / "transcript/aishell_transcript_v0.8.txt", tree.folder / "wav/train/S0002"
    noise(speaker / "BAC009S0002W0900.wav")
    (speaker / "BAC009S0002W0000.wav").write_bytes(b"")
    with told.open("a", encoding="utf-8") as file:
        file.write("BAC009S0002W0500 没有 声音\nBAC009S0002W0501\n没有 声音\n")
    return {
        "not in the form 'ID WORDS'": [f"{told}:10", f"{told}:11"],
        "no audio": [f"BAC009S0002W0500 ({told}:9)"],
        "no text": [str(speaker / "BAC009S0002W0900.wav")],
        "is empty (0 bytes)": [f"BAC009S0002W0000 ({told}:1)"],
    }


def spoil_tedlium(tree: Tree) -> dict[str, list[str]]:
    stm, sph = tree.folder / "data/stm", tree.folder / "data/sph"
    noise(sph / "Untold_2010.sph", format="NIST", subtype="PCM_16")
    noise(sph / "Short_2010.sph", format="NIST", subtype="PCM_16")
    (sph / "Torn_2010.sph").write_bytes((sph / "TrainTalk_2010.sph").read_bytes()[:20_000])
    lines(stm / "Lost_2010.stm", "Lost_2010 1 Lost_2010 0 1 <o,f0,male> lost")
    lines(stm / "Torn_2010.stm", "Torn_2010 1 Torn_2010 0 1 <o,f0,male> torn")
    lines(
        stm / "Short_2010.stm",
        "Short_2010 1 Short_2010 0.5 1.01 <o,f0,male> to the end",
        "Short_2010 1 Short_2010 1.5 2 <o,f0,male> behind it",
        "Short_2010 1 Short_2010 zero 1 <o,f0,male> never",
        "Short_2010 1 Short_2010 0.6 0.5 <o,f0,male> back",
        "Short_2010 1 Short_2010 0 0.4 <o,f0,male> {NOISE} <unk>",
        "Short_2010 1",
    )
    return {
        "not a line of STM": [f"{stm / 'Short_2010.stm'}:{number}" for number in (3, 4, 6)],
        "empty text": [f"Short_2010-4 ({stm / 'Short_2010.stm'}:5)"],
        "no audio": [f"Lost_2010-0 ({stm / 'Lost_2010.stm'}:1)"],
        "no text": [str(sph / "Untold_2010.sph")],
        "starts after the end of its recording": [f"Short_2010-1 ({stm / 'Short_2010.stm'}:2)"],
        "*": [f"Torn_2010-0 ({stm / 'Torn_2010.stm'}:1)"],
    }


def spoil_commonvoice(tree: Tree) -> dict[str, list[str]]:
    table = tree.folder / "train.tsv"
    (tree.folder / "clips/common_voice_fr_00.mp3").write_bytes(b"ID3 and nothing")
    (tree.folder / "clips/common_voice_fr_01.mp3").unlink()
    with table.open("a", encoding="utf-8") as file:
        file.write("x\tcommon_voice_fr_02.mp3\tEncore\t2\t\t\t\t\nx\tcommon_voice_fr_77.mp3\tMoitié\n")
        file.write("x\t../clips/common_voice_fr_10.mp3\tDehors\t2\t\t\t\t\n")
    return {
        "duplicate id": [f"common_voice_fr_02 ({table}:6)"],
        "wrong number of columns": [f"{table}:7"],
        "path is not a file name": [f"{table}:8"],
        "no audio": [f"common_voice_fr_01 ({table}:3)"],
        "*": [f"common_voice_fr_00 ({table}:2)"],
    }


def spoil_covost2(tree: Tree) -> dict[str, list[str]]:
    table = tree.folder / "covost_v2.fr_en.tsv"
    (tree.folder / "clips/common_voice_fr_01.mp3").unlink()
    with table.open("a", encoding="utf-8") as file:
        file.write("common_voice_fr_66.mp3\tNever said\ttrain\ncommon_voice_fr_67.mp3\ttrain\n")
    return {
        "wrong number of columns": [f"{table}:12"],
        "not in validated.tsv": [f"{table}:11"],
        "no audio": [f"common_voice_fr_01 ({tree.folder / 'validated.tsv'}:3)"],
    }


def spoil_mustc(tree: Tree) -> dict[str, list[str]]:
    txt = tree.folder / "data/train/txt"
    segments = (txt / "train.yaml").read_text().splitlines()
    segments[1] = "- {duration: 1.25, offset: &x [*x"
    segments[2] = segments[2].replace("ted_1.wav", "ted_9.wav")
    lines(
        txt / "train.yaml", *segments, "- {duration: 1, offset: 1, speaker_id: spk.1, wav: ../ted_1.wav}", segments[0]
    )
    lines(txt / "train.en", *(txt / "train.en").read_text().splitlines(), "Out.", "")
    lines(txt / "train.de", *(txt / "train.de").read_text().splitlines(), "Hinaus.", "Nichts.")
    return {
        "not a segment": [f"{txt / 'train.yaml'}:2", f"{txt / 'train.yaml'}:5"],
        "no audio": [f"ted_9_0 ({txt / 'train.yaml'}:3)"],
        "empty text": [f"ted_1_2 ({txt / 'train.yaml'}:6)"],
    }


SPOIL: dict[str, Callable[[Tree], dict[str, list[str]]]] = {
    "librispeech": spoil_librispeech,
    "aishell": spoil_aishell,
    "tedlium": spoil_tedlium,
    "commonvoice": spoil_commonvoice,
    "covost2": spoil_covost2,
    "mustc": spoil_mustc,
}


# Training texts that are lost in a spoiled corpus.
LOST: dict[str, set[str]] = {
    "librispeech": {"IT'S NUMBER CHARLIE DELTA", "IT'S NUMBER ECHO FOXTROT"},
    "aishell": {"而对楼市甲K歌"},
    "tedlium": set(),
    "commonvoice": {"\"Ça, c'est alpha bravo", "\"Ça, c'est charlie delta"},
    "covost2": {"\"Ça, c'est charlie delta"},
    "mustc": {"This is, well, charlie delta.", "This is, well, echo foxtrot."},
}


@pytest.mark.parametrize("name", SPOIL)
def test_faulty_entries_are_left_out_and_named_with_their_line(name: str, tmp_path: Path) -> None:
    tree = TREES[name](tmp_path / "source")
    expected = SPOIL[name](tree)
    output = run(tree, tmp_path / "o")
    found = {reason: by_split.pop("train") for reason, by_split in left_out(tmp_path / "o").items()}
    of_audio = expected.pop("*", [])  # for a reason given by the decoder
    assert [n for reason, names in found.items() if reason not in expected for n in names] == of_audio
    assert {reason: names for reason, names in found.items() if reason in expected} == expected
    kept = {text_of(cut) for cut in cuts(tmp_path / "o", "train")}
    assert set(tree.texts["train"].values()) - kept == LOST[name]
    assert "Left out" in output
    for split in ("dev", "test"):
        assert len(cuts(tmp_path / "o", split)) == COUNTS[split]


def test_missing_part_is_reported_in_one_line(tree: Tree, tmp_path: Path) -> None:
    dev = next(p for p in sorted(tree.folder.rglob("*")) if p.name in ("dev", "dev-other", "dev.tsv", "validated.tsv"))
    shutil.rmtree(dev) if dev.is_dir() else dev.unlink()
    (error,) = run(tree, tmp_path / "o", status=1).splitlines()
    assert error.startswith("error: ")
    assert dev.name in error
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_split_without_recordings_is_reported_in_one_line(tree: Tree, tmp_path: Path) -> None:
    for path in tree.folder.rglob("*"):
        if path.suffix in (".flac", ".wav", ".sph", ".mp3"):
            path.write_bytes(b"RIFF")
    (error,) = run(tree, tmp_path / "o", status=1).splitlines()
    assert error.startswith("error: nothing is left of train (")
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_wrong_columns_and_line_counts_are_reported(tmp_path: Path) -> None:
    tree, out = TREES["commonvoice"](tmp_path / "voices"), tmp_path / "o"
    table = tree.folder / "dev.tsv"
    lines(table, "client_id\tpath\ttext", "x\ty.mp3\tz")
    assert run(tree, out, status=1) == f"error: {table}:1: no column sentence\n"
    lines(table)
    assert run(tree, out, status=1) == f"error: {table}:1: no column path, sentence, client_id\n"
    tree = TREES["mustc"](tmp_path / "talks")
    with (tree.folder / "data/dev/txt/dev.de").open("a") as file:
        file.write("Zu viel.\n")
    counts = "dev.yaml 2, dev.en 2, dev.de 3"
    assert run(tree, out, status=1).endswith(f"dev/txt: the files differ in their number of lines: {counts}\n")
    assert not list(out.glob("cuts_*"))

"""The recipes of published corpora on tiny trees: what is read, what is left out, and that it can be trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from command import asr
from lhotse.recipes import prepare_aishell, prepare_librispeech
from lhotse.recipes.must_c import prepare_must_c
from lhotse.recipes.tedlium import _parse_stm_file
from lhotse.serialization import load_manifest
from published import COUNTS, TREES, Tree, cuts, lines, noise, run

from asr.data.cuts import load_audio, read_cuts, text_of
from recipes.preparing import SPLITS

CONF = Path(__file__).parents[1] / "conf"
SMALL = ["dim=16", "layers=1", "heads=2", "feed_forward=16"]


def left_out(out: Path) -> dict[str, dict[str, list[str]]]:
    (item,) = json.loads((out / "prepared.json").read_text())["report"]["languages"]
    return {reason: {s: n for s, n in by_split.items() if n} for reason, by_split in item["dropped"].items()}


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return TREES[request.param](tmp_path / "source")


def test_cuts_have_texts_spans_and_translations(tree: Tree, tmp_path: Path) -> None:
    output = run(tree, tmp_path / "o")
    assert left_out(tmp_path / "o") == {}
    assert "no recording stands in two splits" in output
    for split, told in tree.texts.items():
        found = {cut.id: cut for cut in cuts(tmp_path / "o", split)}
        assert {name: cut.supervisions[0].text for name, cut in found.items()} == told
        for name, cut in found.items():
            (said,) = cut.supervisions
            begin_s, end_s = tree.spans.get(name, (0.0, 1.0))
            assert (cut.start, cut.end, said.duration) == (begin_s, end_s, cut.duration)
            assert said.language == tree.language
            assert (said.custom or {}).get("translations", {}) == tree.translations.get(name, {})
            path = cut.recording.sources[0].source
            expected_N = soundfile.read(path, dtype="float32")[0][round(begin_s * cut.sampling_rate) :][
                : cut.num_samples
            ]
            assert load_audio(cut, cut.sampling_rate).tolist() == expected_N.tolist()


# --- beside lhotse's own recipes, where it has one ------------------------------------------------------


def told_by_lhotse(tree: Tree, out: Path, name: str) -> dict[str, list[Any]]:
    """Segments by part: id, begin, duration and text."""
    if name == "mustc":  # which keeps the translations alone, and counts from 0 in each talk
        prepare_must_c(tree.folder.parent, out, "de")
        found = {
            part: load_manifest(out / f"must_c_supervisions_en-de_{part}.jsonl.gz")
            for part in ("train", "dev", "tst-COMMON", "tst-HE")
        }
        return {
            part: [(s.id.replace("-seg-", "_"), s.start, s.duration, s.text) for s in f] for part, f in found.items()
        }
    if name == "tedlium":  # whose recipe needs a program for SPH
        talks = {part: (tree.folder / "legacy" / part / "stm").glob("*.stm") for part in SPLITS}
        found = {part: [s for stm in talks[part] for s in _parse_stm_file(stm, "kaldi")] for part in talks}
    else:
        made = prepare_librispeech(tree.folder) if name == "librispeech" else prepare_aishell(tree.folder.parent)
        found = {part: manifests["supervisions"] for part, manifests in made.items()}
    return {
        part: [(s.id, s.start, s.duration, " ".join(s.text.split())) for s in segments]
        for part, segments in found.items()
    }


@pytest.mark.parametrize("name", ["librispeech", "aishell", "tedlium", "mustc"])
def test_lhotse_finds_the_same(name: str, tmp_path: Path) -> None:
    tree = TREES[name](tmp_path / "source")
    run(tree, tmp_path / "o")
    expected = told_by_lhotse(tree, tmp_path / "lhotse", name)
    assert {"train"} < {part.partition("-")[0] for part in expected}
    for part, segments in expected.items():
        split = "train" if part.startswith("train") else part
        found = [
            (
                c.id,
                c.start,
                c.duration,
                c.supervisions[0].custom["translations"]["de"] if name == "mustc" else c.supervisions[0].text,
            )
            for c in cuts(tmp_path / "o", split)
        ]
        assert sorted(found) == sorted(segments)


# --- what is broken is told, and the rest goes on --------------------------------------------------------


def spoil_librispeech(tree: Tree) -> dict[str, list[str]]:
    chapter = tree.folder / "train-clean-100/100/7"
    told = chapter / "100-7.trans.txt"
    noise(chapter / "100-7-0009.flac")
    (chapter / "100-7-0001.flac").write_bytes(b"fLaC, but not really")
    (chapter / "100-7-0002.flac").unlink()
    with told.open("ab") as file:
        file.write(b"HELLO THERE\n\n100-7-0003 AGAIN\n100-7-0010\n100-7-0011 \xff\n../../x-1-2 OUT\n")
    return {
        "no line of 'SPEAKER-CHAPTER-NUMBER TEXT'": [f"{told}:5", f"{told}:10"],
        "second text of an id": [f"100-7-0003 ({told}:7)"],
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
        "no line of 'ID WORDS'": [f"{told}:10", f"{told}:11"],
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
        "no line of STM": [f"{stm / 'Short_2010.stm'}:{number}" for number in (3, 4, 6)],
        "empty text": [f"Short_2010-4 ({stm / 'Short_2010.stm'}:5)"],
        "no audio": [f"Lost_2010-0 ({stm / 'Lost_2010.stm'}:1)"],
        "no text": [str(sph / "Untold_2010.sph")],
        "lies behind the end of its recording": [f"Short_2010-1 ({stm / 'Short_2010.stm'}:2)"],
        "*": [f"Torn_2010-0 ({stm / 'Torn_2010.stm'}:1)"],
    }


def spoil_commonvoice(tree: Tree) -> dict[str, list[str]]:
    table = tree.folder / "train.tsv"
    (tree.folder / "clips/common_voice_fr_00.mp3").write_bytes(b"ID3 and nothing")
    (tree.folder / "clips/common_voice_fr_01.mp3").unlink()
    with table.open("a", encoding="utf-8") as file:
        file.write("x\tcommon_voice_fr_02.mp3\tEncore\t2\nx\tcommon_voice_fr_77.mp3\tMoitié\n")
        file.write("x\t../clips/common_voice_fr_10.mp3\tDehors\t2\n")
    return {
        "second text of an id": [f"common_voice_fr_02 ({table}:6)"],
        "not as wide as the table": [f"{table}:7"],
        "no name of a file as its path": [f"{table}:8"],
        "no audio": [f"common_voice_fr_01 ({table}:3)"],
        "*": [f"common_voice_fr_00 ({table}:2)"],
    }


def spoil_covost2(tree: Tree) -> dict[str, list[str]]:
    table = tree.folder / "covost_v2.fr_en.tsv"
    (tree.folder / "clips/common_voice_fr_01.mp3").unlink()
    with table.open("a", encoding="utf-8") as file:
        file.write("common_voice_fr_66.mp3\tNever said\ttrain\ncommon_voice_fr_67.mp3\ttrain\n")
    return {
        "not as wide as the table": [f"{table}:12"],
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
        "no segment": [f"{txt / 'train.yaml'}:2", f"{txt / 'train.yaml'}:5"],
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


# Training texts that a spoiled corpus has not.
LOST: dict[str, set[str]] = {
    "librispeech": {"IT'S NUMBER CHARLIE DELTA", "IT'S NUMBER ECHO FOXTROT"},
    "aishell": {"而对楼市甲K歌"},
    "tedlium": set(),
    "commonvoice": {"\"Ça, c'est alpha bravo", "\"Ça, c'est charlie delta"},
    "covost2": {"\"Ça, c'est charlie delta"},
    "mustc": {"This is, well, charlie delta.", "This is, well, echo foxtrot."},
}


@pytest.mark.parametrize("name", SPOIL)
def test_what_is_broken_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    tree = TREES[name](tmp_path / "source")
    expected = SPOIL[name](tree)
    output = run(tree, tmp_path / "o")
    found = {reason: by_split.pop("train") for reason, by_split in left_out(tmp_path / "o").items()}
    of_audio = expected.pop("*", [])  # for a reason of the decoder's
    assert [n for reason, names in found.items() if reason not in expected for n in names] == of_audio
    assert {reason: names for reason, names in found.items() if reason in expected} == expected
    kept = {text_of(cut) for cut in cuts(tmp_path / "o", "train")}
    assert set(tree.texts["train"].values()) - kept == LOST[name]
    assert "Left out" in output
    for split in ("dev", "test"):
        assert len(cuts(tmp_path / "o", split)) == COUNTS[split]


def test_a_missing_part_is_one_line(tree: Tree, tmp_path: Path) -> None:
    dev = next(p for p in sorted(tree.folder.rglob("*")) if p.name in ("dev", "dev-other", "dev.tsv", "validated.tsv"))
    shutil.rmtree(dev) if dev.is_dir() else dev.unlink()
    (error,) = run(tree, tmp_path / "o", status=1).splitlines()
    assert error.startswith("error: ")
    assert dev.name in error
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_a_split_without_a_recording_is_one_line(tree: Tree, tmp_path: Path) -> None:
    for path in tree.folder.rglob("*"):
        if path.suffix in (".flac", ".wav", ".sph", ".mp3"):
            path.write_bytes(b"RIFF")
    (error,) = run(tree, tmp_path / "o", status=1).splitlines()
    assert error.startswith("error: nothing is left of train (")
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_files_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
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
    assert run(tree, out, status=1).endswith(f"dev/txt: the files have not the same number of lines: {counts}\n")
    assert not list(out.glob("cuts_*"))


# --- splits that must not touch ----------------------------------------------------------------------------


def test_what_dev_or_test_have_is_no_training_material(tmp_path: Path) -> None:
    tree, out = TREES["mustc"](tmp_path / "source"), tmp_path / "o"
    data = tree.folder / "data"
    shutil.copy(data / "tst-HE/wav/ted_4.wav", data / "train/wav/ted_1.wav")
    noise(data / "train/wav/ted_9.wav", 2)
    segment = "- {duration: 1, offset: 0, speaker_id: spk.2, wav: ted_9.wav}"
    for end, line in (("yaml", segment), ("en", "Nine."), ("de", "Neun.")):
        path = data / f"train/txt/train.{end}"
        lines(path, *path.read_text().splitlines(), line)
    output = run(tree, out)
    assert [cut.id for cut in cuts(out, "train")] == ["ted_9_0"]
    where = data / "train/txt/train.yaml"
    assert left_out(out) == {
        "same audio as ted_4_0 (test)": {"train": [f"ted_1_{i} ({where}:{i + 1})" for i in (0, 1)]},
        "lies behind the end of its recording": {"train": [f"ted_1_{i} ({where}:{i + 1})" for i in (2, 3)]},
    }
    assert "speakers of dev or test that are in train, too: 1" in output


def test_tables_of_covost_that_are_ready(tmp_path: Path) -> None:
    tree, out = TREES["covost2"](tmp_path / "source"), tmp_path / "o"
    run(tree, tmp_path / "joined")
    for split in SPLITS:
        rows = [
            f"{cut.id}.mp3\t{said.text}\t{said.custom['translations']['en']}\t{said.speaker}".replace('"', '\\"')
            for cut in cuts(tmp_path / "joined", split)
            for said in cut.supervisions
        ]
        lines(tree.folder / f"covost_v2.fr_en.{split}.tsv", "path\tsentence\ttranslation\tclient_id", *rows)
    (tree.folder / "validated.tsv").unlink()
    run(tree, out)
    for path in out.glob("cuts_*"):
        assert path.read_bytes() == (tmp_path / "joined" / path.name).read_bytes()


# --- it can be trained on ---------------------------------------------------------------------------------


def small(name: str, tree: Tree, out: Path) -> tuple[Path, list[str]]:
    """A configuration of the corpus, and what makes two steps on a tiny tree of it."""
    config = sorted((CONF / name).glob("*.yaml"))[0]
    changed = [f"data.train={out / 'cuts_train.jsonl.gz'}", f"data.dev={out / 'cuts_dev.jsonl.gz'}"]
    changed += [f"model.encoder.{size}" for size in SMALL] + [f"model.decoder.{size}" for size in SMALL[1:]]
    changed += ["data.workers=0", "trainer.max_steps=2", "trainer.accumulate=1", "trainer.step_log=true"]
    changed += ["trainer.device=cpu", "trainer.precision=fp32", "trainer.plot_utterances=0", "decode.beam_size=1"]
    if "vocab_size" in config.read_text():
        changed.append("tokenizer.vocab_size=28")
    return config, changed


def losses(run: Path) -> list[str]:
    return [json.loads(line)["loss"] for line in (run / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", TREES)
def test_a_model_is_trained_and_evaluated(name: str, tmp_path: Path) -> None:
    tree, out = TREES[name](tmp_path / "source"), tmp_path / "o"
    run(tree, out)
    config, changed = small(name, tree, out)
    done = asr("train", config, *changed, f"out={tmp_path / 'run'}")
    assert done.status == 0, done.err
    assert len(losses(tmp_path / "run")) == 2
    done = asr("evaluate", out / "cuts_test.jsonl.gz", "--model", tmp_path / "run" / "model")
    assert done.status == 0, done.err
    assert "2 utterances" in done.out


# --- shards -------------------------------------------------------------------------------------------------


def test_shards_hold_the_utterances_and_what_is_heard_in_them(tree: Tree, tmp_path: Path) -> None:
    out = tmp_path / "o"
    run(tree, out, "--shar", 3)
    assert len(list((out / "shar_train").glob("recording.*.tar"))) == 2
    for path in out.glob("cuts_*.jsonl.gz"):
        listed = list(read_cuts(path))
        stored = list(read_cuts(out / path.name.replace("cuts_", "shar_").removesuffix(".jsonl.gz")))
        assert [(c.id, text_of(c), c.duration) for c in stored] == [(c.id, text_of(c), c.duration) for c in listed]
        for one, other in zip(stored, listed, strict=True):
            assert one.supervisions[0].custom == other.supervisions[0].custom
            heard_N, expected_N = (load_audio(c, c.sampling_rate) for c in (one, other))
            if tree.language == "fr":  # MP3, of which 16 bits are kept
                assert (heard_N - expected_N).abs().max() <= 2**-15
            else:
                assert heard_N.tolist() == expected_N.tolist()


def test_shards_train_as_their_manifest_does(tmp_path: Path) -> None:
    tree, out = TREES["tedlium"](tmp_path / "source"), tmp_path / "o"
    run(tree, out, "--shar", 100)
    config, changed = small("tedlium", tree, out)
    found = []
    for name, source in (("listed", "cuts_train.jsonl.gz"), ("stored", "shar_train")):
        words = [f"data.train={out / source}", "data.stream=true", f"out={tmp_path / name}"]
        done = asr("train", config, *changed, *words)
        assert done.status == 0, done.err
        found.append(losses(tmp_path / name))
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_a_second_run_does_nothing_and_lost_shards_are_noticed(tmp_path: Path) -> None:
    tree, out = TREES["librispeech"](tmp_path / "source"), tmp_path / "o"
    run(tree, out, "--shar", 3)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*z")}
    run(tree, out, "--shar", 3)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    (out / "shar_train" / "recording.000000.tar").unlink()
    run(tree, out, "--shar", 3)
    assert (out / "shar_train" / "recording.000000.tar").exists()
    assert not list(out.glob(".part-*"))

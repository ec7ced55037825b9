"""Recipes of published corpora on tiny trees: their cuts, also against lhotse's recipes, and disjoint splits."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import soundfile
from lhotse.recipes import commonvoice, prepare_aishell, prepare_librispeech
from lhotse.recipes.must_c import prepare_must_c
from lhotse.recipes.tedlium import _parse_stm_file
from lhotse.serialization import load_manifest
from published import TREES, Tree, cuts, left_out, lines, noise, run

from asr.data.cuts import load_audio
from recipes.preparing import SPLITS
from recipes.tedlium.prepare import AFTER_S, BEFORE_S, extended


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return TREES[request.param](tmp_path / "source")


def test_cuts_have_texts_spans_and_translations(tree: Tree, tmp_path: Path) -> None:
    output = run(tree, tmp_path / "o")
    assert left_out(tmp_path / "o") == {}
    assert "no recording is in two splits" in output
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


# --- against lhotse's own recipes ----------------------------------------------------------------------


def told_by_lhotse(tree: Tree, out: Path, name: str) -> dict[str, list[Any]]:
    """Return lhotse's segments by part: id, start, duration and text."""
    if name == "mustc":  # lhotse keeps only the translations, and counts from 0 in each talk
        prepare_must_c(tree.folder.parent, out, "de")
        found = {
            part: load_manifest(out / f"must_c_supervisions_en-de_{part}.jsonl.gz")
            for part in ("train", "dev", "tst-COMMON", "tst-HE")
        }
        return {
            part: [(s.id.replace("-seg-", "_"), s.start, s.duration, s.text) for s in f] for part, f in found.items()
        }
    if name == "tedlium":  # lhotse's recipe needs a program that reads SPH
        talks = {part: (tree.folder / "legacy" / part / "stm").glob("*.stm") for part in SPLITS}
        found = {part: [s for stm in talks[part] for s in _parse_stm_file(stm, "kaldi")] for part in talks}
        for segment in found["train"]:  # training segments are cut too tightly
            segment.start, segment.duration = segment.start - BEFORE_S, segment.duration + BEFORE_S + AFTER_S
    else:
        if name == "commonvoice":
            made = commonvoice.prepare_commonvoice(tree.folder.parent, out, "fr")["fr"]
        else:
            made = prepare_librispeech(tree.folder) if name == "librispeech" else prepare_aishell(tree.folder.parent)
        found = {part: manifests["supervisions"] for part, manifests in made.items()}
    return {
        part: [(s.id, s.start, s.duration, " ".join(s.text.split())) for s in segments]
        for part, segments in found.items()
    }


@pytest.mark.parametrize("name", ["librispeech", "aishell", "tedlium", "commonvoice", "mustc"])
def test_lhotse_recipes_find_the_same_segments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # lhotse starts processes, each of which would load everything first
    monkeypatch.setattr(commonvoice, "ProcessPoolExecutor", lambda **given: ThreadPoolExecutor(1))
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


def test_tedlium_segments_are_extended_up_to_their_neighbours() -> None:
    spans = [(0.1, 1.0), (1.05, 2.0), (2.0, 3.0), (9.0, 10.0), (9.5, 9.8)]  # near 0, close, touching, nested
    longer = [(0.0, 1.05), (1.0, 2.0), (2.0, 3.1), (8.85, 10.1), (9.35, 9.9)]
    assert extended(spans) == [pytest.approx(span) for span in longer]


# --- splits must be disjoint -------------------------------------------------------------------------------


def test_audio_of_dev_or_test_is_dropped_from_train(tmp_path: Path) -> None:
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
        "starts after the end of its recording": {"train": [f"ted_1_{i} ({where}:{i + 1})" for i in (2, 3)]},
    }
    assert "speakers of dev or test that are also in train: 1" in output


def test_ready_made_covost_tables_give_the_same_cuts(tmp_path: Path) -> None:
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

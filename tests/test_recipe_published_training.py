"""Training on what the recipes of published corpora prepare, from manifests and from shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import asr
from published import TREES, Tree, run

from asr.config import ExperimentConfig, read_config
from asr.data.cuts import load_audio, read_cuts, text_of

CONF = Path(__file__).parents[1] / "conf"
SMALL = ["dim=16", "layers=1", "heads=2", "feed_forward=16"]


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return TREES[request.param](tmp_path / "source")


def experiments(name: str) -> list[Path]:
    """Return the experiments on a corpus, each after the one whose encoder it starts from."""
    return sorted((CONF / name).glob("*.yaml"))


def small(path: Path, out: Path) -> list[str]:
    """Return overrides with which an experiment makes two steps on a tiny corpus; out: the folder of its cuts."""
    config = read_config(ExperimentConfig, path)
    changed = [f"data.train={out / 'cuts_train.jsonl.gz'}", f"data.dev={out / 'cuts_dev.jsonl.gz'}"]
    if config.init is None:
        changed += [f"model.encoder.{size}" for size in (*SMALL, "subsampling.channels=16")]
    changed += [f"model.decoder.{size}" for size in SMALL[1:]]
    changed += ["data.workers=0", "trainer.max_steps=2", "trainer.accumulate=1", "trainer.step_log=true"]
    changed += ["trainer.device=cpu", "trainer.precision=fp32", "trainer.plot_utterances=0", "decode.beam_size=1"]
    if config.tokenizer.kind in ("unigram", "bpe"):
        changed.append("tokenizer.vocab_size=28")
    return changed


def losses(run: Path) -> list[str]:
    return [json.loads(line)["loss"] for line in (run / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", TREES)
def test_every_experiment_is_trained_averaged_and_evaluated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # run folders, and the averages that others start from, are where the files say
    tree, out = TREES[name](tmp_path / "source"), tmp_path / "o"
    run(tree, out)
    for path in experiments(name):
        config = read_config(ExperimentConfig, path)
        done = asr("train", path, *small(path, out))
        assert done.status == 0, done.err
        assert len(losses(config.out)) == 2
        done = asr("average", config.out)
        assert done.status == 0, done.err
        task = config.data.tasks[0]
        done = asr("evaluate", out / "cuts_test.jsonl.gz", "--model", config.out / "averaged", "--task", task)
        assert done.status == 0, done.err
        assert "2 utterances" in done.out
        assert ("BLEU" in done.out) == task.startswith("translate:")


# --- shards -------------------------------------------------------------------------------------------------


def test_shards_hold_the_same_cuts_and_audio_as_manifests(tree: Tree, tmp_path: Path) -> None:
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
            if tree.language == "fr":  # from MP3, stored with 16 bits
                assert (heard_N - expected_N).abs().max() <= 2**-15
            else:
                assert heard_N.tolist() == expected_N.tolist()


def test_shards_give_the_same_losses_as_their_manifest(tmp_path: Path) -> None:
    tree, out = TREES["tedlium"](tmp_path / "source"), tmp_path / "o"
    run(tree, out, "--shar", 100)
    (path,) = experiments("tedlium")
    found = []
    for name, source in (("listed", "cuts_train.jsonl.gz"), ("stored", "shar_train")):
        words = [f"data.train={out / source}", "data.stream=true", f"out={tmp_path / name}"]
        done = asr("train", path, *small(path, out), *words)
        assert done.status == 0, done.err
        found.append(losses(tmp_path / name))
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_second_run_does_nothing_unless_shards_are_lost(tmp_path: Path) -> None:
    tree, out = TREES["librispeech"](tmp_path / "source"), tmp_path / "o"
    run(tree, out, "--shar", 3)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*z")}
    run(tree, out, "--shar", 3)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    (out / "shar_train" / "recording.000000.tar").unlink()
    run(tree, out, "--shar", 3)
    assert (out / "shar_train" / "recording.000000.tar").exists()
    assert not list(out.glob(".part-*"))


def test_shards_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    tree, out = TREES["librispeech"](tmp_path / "source"), tmp_path / "o"
    run(tree, out, "--shar", 3)
    (out / "shar_mine").mkdir()
    run(tree, out)
    assert [path.name for path in out.glob("shar_*")] == ["shar_mine"], "no recipe made this folder, so it stays"

"""Training cuts that are read as they are needed: the same guarantees as for cuts in memory."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from synthetic import (
    RATE,
    cut,
    described,
    experiment,
    experiment_file,
    logged_steps,
    manifest,
    short_cuts,
    speech_data,
    untrained,
)
from test_training import SAVE_EVERY, kill_after, run, steps

from asr.checkpoint import load_model_folder
from asr.config import AugmentConfig
from asr.data.augment import Variation
from asr.data.corpus import vocabulary_cuts
from asr.data.cuts import pieces, read_cuts, text_of
from asr.data.module import SpeechData
from asr.data.sources import Line
from asr.data.stream import ExampleDataset, Position, Share
from asr.errors import AsrError, DataError
from asr.training.start import advise_to_stream, report_dropped, starting_point, total_steps

STREAM = "data.stream=true"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on 40 clips, which are also in a Shar folder beside it."""
    path = experiment_file(tmp_path_factory.mktemp("corpus"))
    shards = path.parent / "shards"
    shards.mkdir()
    read_cuts(path.parent / "train.jsonl.gz").to_shar(shards, fields={"recording": "flac"}, shard_size=7)
    return path


@pytest.fixture(params=["manifest", "shar"])
def streamed(path: Path, request: pytest.FixtureRequest) -> str:
    """The override that streams the experiment's training cuts."""
    return STREAM if request.param == "manifest" else f"data.train={path.parent / 'shards'}"


def module(path: Path, *overrides: str, frames_per_s: float | None = 25.0) -> SpeechData:
    config = experiment(path, *overrides)
    return speech_data(config, untrained(config), frames_per_s)


Described = list[tuple[str, float, str]]


def listed(data: SpeechData) -> list[tuple[Position, Described]]:
    return [(position, described(found)) for found, position, _ in data.stream]


# ---- the cuts of an epoch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("data.shuffle_buffer=5",), ("data.batch_size=2",), ("data.buckets=1",)])
def test_each_epoch_has_every_cut_once_in_batches_within_budget(
    path: Path, streamed: str, options: tuple[str, ...]
) -> None:
    data = module(path, streamed, *options)
    found = listed(data)
    orders = []
    for epoch in range(3):
        orders.append([id for position, batch in found if position.epoch == epoch for id, _, _ in batch])
        assert sorted(orders[-1]) == sorted(f"train-{i}" for i in range(40))
    assert orders[0] != orders[1] != orders[2]
    for _, batch in found:
        longest_s = max(duration for _, duration, _ in batch)
        assert len(batch) * longest_s <= data.config.data.batch_duration_s or len(batch) == 1
        assert len(batch) <= (data.config.data.batch_size or len(batch))
    own = {cut.id: cut for cut in data.train_cuts}
    alone = [(own[id].duration, s) for _, batch in found for id, s, text in batch if text == text_of(own[id])]
    assert {round(own_s / s, 2) for own_s, s in alone} == {0.9, 1.0, 1.1}  # speeds
    assert max(len(text.split()) for _, batch in found for _, _, text in batch) > 2  # some are joined


def test_epochs_depend_on_the_seed_and_resume_from_any_position(path: Path, streamed: str) -> None:
    whole = listed(module(path, streamed))
    assert listed(module(path, streamed)) == whole
    assert listed(module(path, streamed, "seed=6")) != whole
    for k in range(0, len(whole), 5):
        rest, passed = module(path, streamed), []
        rest.load_state_dict({"epoch": whole[k][0].epoch, "batches": whole[k][0].batches + 1, "waited_s": 0.0})
        rest.stream.on_passed = lambda batches, of, passed=passed: passed.append((batches, of))
        assert listed(rest) == whole[k + 1 :]
        done = whole[k][0].batches + 1
        assert passed == [(i, done) for i in range(1, done + 1)]


def test_shar_folder_and_manifest_give_the_same_examples(path: Path) -> None:
    """Up to the rounding of FLAC; compared by id, as shards are read in random order."""
    plain = ("augment.join=0", "augment.speeds=[1.0]", "trainer.max_epochs=1")
    examples = []
    for source in (STREAM, f"data.train={path.parent / 'shards'}"):
        data = module(path, source, *plain)
        batches = list(data.train_dataloader())
        rows = [(id, batch, row) for batch in batches for row, id in enumerate(batch.ids)]
        examples.append(
            {id: (b.audio_BN[r, : b.audio_len_B[r]], b.tokens_BL[r, : b.token_len_B[r]]) for id, b, r in rows}
        )
    assert examples[0].keys() == examples[1].keys()
    for id, (audio_N, tokens_L) in examples[0].items():
        torch.testing.assert_close(examples[1][id][0], audio_N, atol=2**-15, rtol=0)
        assert torch.equal(examples[1][id][1], tokens_L)


def test_processes_share_the_batches_of_a_stream(path: Path, streamed: str) -> None:
    ranks = [module(path, streamed, "trainer.max_epochs=1") for _ in range(2)]
    parts = [ExampleDataset(data.examples.augmented, Share(rank, 2)) for rank, data in enumerate(ranks)]
    whole = module(path, streamed, "trainer.max_epochs=1").stream
    for batch, *own in zip(whole, *(data.stream for data in ranks), strict=True):
        shares = [part[mine] for part, mine in zip(parts, own, strict=True)]
        ids = [id for share in shares if share.weight for id in share.ids]
        assert sorted(ids) == sorted(c.id for c in batch.cuts)


def test_shuffling_moves_a_cut_forward_by_at_most_the_buffer(path: Path) -> None:
    order = [c.id for c in module(path, STREAM, "data.shuffle_buffer=4").corpus.epoch(0).cuts]
    late = [order.index(f"train-{i}") - i for i in range(40)]
    assert min(late) >= -4
    assert order != sorted(order, key=lambda id: int(id[6:]))


def test_streamed_cuts_are_joined_with_recent_cuts_of_their_language() -> None:
    config = AugmentConfig(speeds=(0.9, 1.1), join=0.7, join_max_s=5.0)
    source = short_cuts(60, languages=("en", "es"))
    language = {text_of(c): c.supervisions[0].language for c in source}
    found = list(Variation(config, 1).passing(iter(source), 0))
    assert [c.id for c in found] == [c.id for c in source]
    assert max(len(pieces(c)) for c in found) > 2
    assert all(len({language[w] for w in text_of(c).split()}) == 1 for c in found)
    assert described(found) == described(Variation(config, 1).passing(source, 0))
    assert described(found) != described(Variation(config, 1).passing(source, 1))


def test_lines_are_read_only_as_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.data.corpus._MEASURED", 100)
    data, taken = module(path, STREAM, "data.shuffle_buffer=50"), 0

    class Endless:
        path = Path("endless.jsonl")

        def entries(self, draw: random.Random) -> Iterator[Line]:
            nonlocal taken
            while True:
                taken += 1
                yield Line(self.path, taken, json.dumps(cut(f"x{taken}", 1).to_dict()).encode())

    data.corpus.source = Endless()
    assert len(list(itertools.islice(data.stream.epoch(0), 20))) == 20
    assert taken < 5000


# ---- cuts left out -----------------------------------------------------------------------------------------------


def mixed_manifest(folder: Path) -> Path:
    cuts = [
        *short_cuts(30, languages=("en", "es")),
        cut("long", 40),
        cut("silent", 1, " "),
        cut("dense", 0.2, "one " * 9),
    ]
    random.Random(0).shuffle(cuts)
    return manifest(folder / "mixed.jsonl", cuts)


def test_unusable_cuts_are_left_out_and_listed_once(path: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    train = mixed_manifest(tmp_path)
    data = module(path, STREAM, f"data.train={train}", f"out={tmp_path / 'run'}", "trainer.max_epochs=2")
    (tmp_path / "run").mkdir()
    report_dropped(data.config, data, console)
    ids = [c.id for batch in data.stream for c in batch.cuts]
    assert sorted(ids) == sorted(2 * [f"c{i}" for i in range(30)])
    rows = [line.split("\t") for line in (tmp_path / "run" / "dropped.tsv").read_text().splitlines()]
    assert sorted(id for id, _ in rows) == ["dense", "long", "silent"]
    assert dict(rows)["long"] == "duration 40.00 s is outside 0.1 to 30 s"
    assert console.export_text().count("left out 3 utterances of the stream, listed in") == 1
    # A run resumed in a later epoch leaves the list unchanged.
    again = module(path, STREAM, f"data.train={train}", f"out={tmp_path / 'run'}", "trainer.max_epochs=2")
    again.load_state_dict({"epoch": 1, "batches": 2, "waited_s": 0.0})
    report_dropped(again.config, again, console)
    assert len(list(again.stream)) > 0
    assert len((tmp_path / "run" / "dropped.tsv").read_text().splitlines()) == 3


@pytest.mark.parametrize("stream", [STREAM, "data.stream=false"])
@pytest.mark.parametrize("tasks", ["[transcribe]", "[transcribe,translate:de]"])
def test_cuts_without_a_language_are_listed_if_languages_are_chosen(
    path: Path, tmp_path: Path, stream: str, tasks: str
) -> None:
    silent = replace(cut("silent", 1), supervisions=[])
    cuts = [*short_cuts(4, languages=("en", "es")), cut("untold", 1, language=None), silent]
    train = manifest(tmp_path / "train.jsonl", cuts)
    chosen = f"data.train={train}", "data.languages=[en]", f"data.tasks={tasks}", "trainer.max_epochs=1"
    data = module(path, stream, *chosen, "model.ctc=false", "loss.ctc_weight=0", f"out={tmp_path}")
    report_dropped(data.config, data, Console(quiet=True))
    assert {c.id for batch in data.stream for c in batch.cuts} == {"c0", "c2"}
    rows = [line.split("\t") for line in (tmp_path / "dropped.tsv").read_text().splitlines() if ">de" not in line]
    assert sorted(rows) == [["silent", "no supervision, thus no language"], ["untold", "no language to choose it by"]]


def test_languages_are_filtered_while_streaming(path: Path, tmp_path: Path) -> None:
    train = mixed_manifest(tmp_path)
    data = module(path, STREAM, f"data.train={train}", "data.languages=[en]", "trainer.max_epochs=1")
    assert sorted(c.id for batch in data.stream for c in batch.cuts) == sorted(f"c{i}" for i in range(0, 30, 2))
    says = "nl: there are 18 in en, 15 in es, 0 without a language; set data.languages=[en, es], or null for all"
    tasks = "data.tasks=[transcribe,translate:de]", "model.ctc=false", "loss.ctc_weight=0"
    for more in ((), tasks):
        with pytest.raises(DataError) as caught:
            module(path, STREAM, f"data.train={train}", "data.languages=[nl]", f"data.dev={train}", *more)
        assert str(caught.value).endswith(says)


def test_streams_without_usable_cuts_are_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    bad = manifest(tmp_path / "bad.jsonl", [cut("a", 31), cut("b", 60)])
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "torn.jsonl").write_text(json.dumps(cut("a", 1).to_dict()) + "\n{torn\n")
    (tmp_path / "cuts.yaml").write_text("[]")
    for name, pattern in {
        bad.name: r"bad\.jsonl: every cut was left out \(.*31\.0",
        "empty.jsonl": r"empty\.jsonl: the manifest is empty",
        "torn.jsonl": r"torn\.jsonl:2: neither cut nor recording",
        "cuts.yaml": r"cuts\.yaml: not a manifest, which ends in",
        "missing.jsonl": r"missing\.jsonl: no such manifest",
    }.items():
        with pytest.raises(DataError, match=pattern) as caught:
            module(path, STREAM, f"data.train={tmp_path / name}")
        assert str(caught.value).isprintable()


# ---- before all cuts have been read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides", [("augment.join=0.9",), ("augment.join=0",), ("augment.join=0", "data.max_duration_s=3")]
)
def test_largest_batch_bounds_every_batch_that_may_come(path: Path, streamed: str, overrides: tuple[str, ...]) -> None:
    data = module(path, streamed, "data.batch_duration_s=60", *overrides)
    largest = data.largest_batch()
    longest_s = largest.audio_BN.shape[1] / RATE
    assert longest_s == data.config.data.max_duration_s
    assert len(largest.ids) == int(60 / longest_s)
    assert largest.tokens_BL.shape[1] > max(b.tokens_BL.shape[1] for b in data.train_dataloader())


def test_total_steps_of_a_stream_are_unknown_without_max_steps(path: Path) -> None:
    data = module(path, STREAM, "optimizer.schedule=inverse_sqrt")
    assert total_steps(data.config, data) is None
    cosine = experiment(path, STREAM, "optimizer.schedule=cosine", "trainer.max_steps=70")
    assert total_steps(cosine, data) == 70
    with pytest.raises(AsrError, match=r"optimizer\.schedule: .* needs trainer\.max_steps"):
        total_steps(experiment(path, STREAM, "optimizer.schedule=cosine"), data)


def test_vocabulary_is_trained_on_texts_from_the_whole_stream(
    path: Path, streamed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(path, streamed, f"out={tmp_path}")
    in_memory = starting_point(experiment(path, f"out={tmp_path / 'other'}")).tokenizer
    assert starting_point(config).tokenizer.vocab_size == in_memory.vocab_size
    monkeypatch.setattr("asr.data.corpus._VOCABULARY_CUTS", 5)
    chosen = [int(c.id[6:]) for c in vocabulary_cuts(config.data)]
    assert len(set(chosen)) == 5
    assert max(chosen) >= 5
    with pytest.raises(DataError, match="no cuts in nl"):
        list(vocabulary_cuts(experiment(path, streamed, "data.languages=[nl]").data))


def test_streaming_is_suggested_for_a_large_manifest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, width=300)
    advise_to_stream(experiment(path), console)
    assert console.export_text() == ""
    monkeypatch.setattr("asr.training.start._LARGE_GZ_BYTES", 100)
    advise_to_stream(experiment(path), console)
    assert "are read into memory; data.stream=true reads them as they are needed" in console.export_text()
    advise_to_stream(experiment(path, STREAM), console)
    assert console.export_text() == ""


# ---- a run -------------------------------------------------------------------------------------------------------


def test_killed_run_on_shar_repeats_the_same_steps(path: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "shar.yaml", tmp_path / "run"
    text = path.read_text().replace(str(path.parent / "train.jsonl.gz"), str(path.parent / "shards"))
    config.write_text(text.replace("max_epochs: 3", "max_epochs: 2"))
    killed = kill_after(config, out, SAVE_EVERY + 3)
    done = run(config, out)
    assert done.returncode == 0, done.stderr
    assert "going on from step-0000006" in done.stderr
    assert "a stream of utterances, 2 epochs" in done.stderr
    assert len(logged_steps(out)) == len(steps(out)) + killed - SAVE_EVERY
    assert {len(outcomes) for outcomes in steps(out).values()} == {1}  # steps done twice are logged alike
    ids = [id for ((_, _, *ids),) in steps(out).values() for id in ids]
    assert sorted(ids) == sorted(2 * [f"train-{i}" for i in range(40)])
    load_model_folder(out / "model")

"""Training and dev data: which cuts are dropped, and how the others are batched."""

from __future__ import annotations

import itertools
import pickle
import sys
import time
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from lhotse.cut import Cut
from synthetic import (
    RATE,
    cut,
    described,
    experiment,
    experiment_file,
    manifest,
    mixer,
    short_cuts,
    speech_data,
    untrained,
    white,
)
from torch.utils.data._utils.pin_memory import pin_memory

from asr.config import AugmentConfig, DataConfig
from asr.data.augment import Variation
from asr.data.batch import Batch, Example, collate
from asr.data.corpus import Drawn
from asr.data.cuts import read_cuts
from asr.data.module import SpeechData
from asr.data.stream import CutBatch, Position, Share, TrainingStream, start_worker
from asr.errors import AudioError, DataError

# ---- the training stream --------------------------------------------------------------------------------------


AUGMENT = AugmentConfig(speeds=(0.9, 1.0, 1.1), join=0.6, join_max_s=5.0)


def stream(max_epochs: int | None = 3, **options: object) -> TrainingStream:
    source = short_cuts()
    config = DataConfig(train="", dev="", **{"batch_duration_s": 10, "buckets": 4, **options})
    variation = Variation(AUGMENT, 7)
    return TrainingStream(lambda epoch: Drawn.listed(variation.shuffled(source, epoch)), config, 7, max_epochs)


def listed(batches: Iterable[CutBatch]) -> list[tuple[Position, list[tuple[str, float, str]]]]:
    return [(position, described(found)) for found, position, _ in batches]


@pytest.mark.parametrize("options", [{}, {"buckets": 1}, {"batch_size": 2}, {"batch_duration_s": 1.5}])
def test_each_epoch_has_every_cut_once_within_the_batch_budget(options: dict[str, float]) -> None:
    chosen = stream(**options)
    found = listed(chosen)
    for epoch in range(3):
        ids = [id for position, batch in found if position.epoch == epoch for id, _, _ in batch]
        assert sorted(ids) == sorted(c.id for c in short_cuts())
    for _, batch in found:
        padded_s = len(batch) * max(duration for _, duration, _ in batch)
        assert padded_s <= chosen.config.batch_duration_s or len(batch) == 1
        assert len(batch) <= (chosen.config.batch_size or len(batch))


def test_each_epoch_has_different_batches() -> None:
    epochs = [[tuple(c.id for c in batch) for batch in stream().epoch(e)] for e in (0, 1)]
    assert len(set(epochs[0]) & set(epochs[1])) < len(epochs[0]) / 2
    places = []  # positions of the batch with the longest cut, from the last bucket
    for epoch in range(6):
        longest_s = [max(c.duration for c in batch) for batch in stream().epoch(epoch)]
        places.append(longest_s.index(max(longest_s)) / len(longest_s))
    assert min(places) < 0.5


def test_stream_resumes_exactly_from_any_position() -> None:
    whole = listed(stream())
    for k, ((epoch, batches), _) in enumerate(whole):
        rest = stream()
        rest.start = Position(epoch, batches + 1)
        assert listed(rest) == whole[k + 1 :]


def test_stream_without_max_epochs_is_endless() -> None:
    per_epoch = sum(1 for _ in stream().epoch(0))
    endless = listed(itertools.islice(stream(None), 5 * per_epoch))
    assert endless[: len(listed(stream()))] == listed(stream())
    assert endless[-1][0].epoch >= 3


# ---- the data module ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"))


def module(path: Path, *overrides: str, frames_per_s: float | None = 25.0) -> SpeechData:
    config = experiment(path, *overrides)
    return speech_data(config, untrained(config), frames_per_s)


def equal(a: Batch, b: Batch) -> bool:
    # Workers use one thread; resampling with several differs in the last bit.
    same = a.audio_BN.shape == b.audio_BN.shape and torch.allclose(a.audio_BN, b.audio_BN, rtol=0, atol=1e-6)
    return (
        same
        and torch.equal(a.tokens_BL, b.tokens_BL)
        and (a.ids, a.texts, a.epoch, a.index, a.applied) == (b.ids, b.texts, b.epoch, b.index, b.applied)
    )


def test_batches_do_not_depend_on_workers_or_reading_order(path: Path) -> None:
    noise = path.parent / "noise"
    mixer(noise, white(RATE))
    noisy = (f"augment.noise={noise}", "augment.noise_probability=0.5", "trainer.max_epochs=1")
    data = module(path, *noisy)
    alone = list(data.train_dataloader())
    many = list(module(path, *noisy, "data.workers=2").train_dataloader())
    assert all(equal(a, b) for a, b in zip(alone, many, strict=True))
    dataset = data.train_dataloader().dataset
    backwards = [dataset[batch] for batch in reversed(list(data.stream))]
    assert all(equal(a, b) for a, b in zip(alone, reversed(backwards), strict=True))
    assert {name for batch in alone for name in batch.applied} == {"speed", "join", "noise"}


def test_dataset_can_be_pickled_for_a_spawned_worker(path: Path) -> None:
    data = module(path, "trainer.max_epochs=1")
    data.trainer = lambda: None  # cannot be pickled
    sent = pickle.loads(pickle.dumps(data.train_dataloader().dataset))
    assert all(equal(sent[batch], own) for batch, own in zip(data.stream, data.train_dataloader(), strict=True))


def test_dropped_cuts_are_listed_with_the_reason(path: Path, tmp_path: Path) -> None:
    bad = {
        "short": (cut("short", 0.05), "duration 0.05 s is outside 0.1 to 3 s"),
        "long": (cut("long", 3.5), "duration 3.50 s is outside 0.1 to 3 s"),
        "empty": (cut("empty", 1, " "), "no text"),
        "signs": (cut("signs", 1, "!?"), "no text is left after normalisation"),
        "wordy": (cut("wordy", 3, "one " * 20), "target of 81 tokens is longer than the decoder's max_length=40"),
        "dense": (cut("dense", 1, "three three"), "target of 11 tokens does not fit 9 encoder frames"),
        "repeats": (cut("repeats", 1, "eeeeee"), "target of 6 tokens does not fit 9 encoder frames"),
        "beyond": (
            replace(cut("beyond", 1), start=0.5, duration=2.5),
            "it goes from 0.50 to 3.00 s, but its recording lasts 1.00 s",
        ),
    }
    good = [cut("good", 1), cut("exact", 1, "eeee n"), cut("slowed", 2.9), replace(cut("rounded", 1), duration=1.09)]
    train = manifest(tmp_path / "train.jsonl", [*(c for c, _ in bad.values()), *good])
    dev_cuts = [cut("dev", 1), cut("hour", 31), cut("wordy-dev", 1, "one " * 20), cut("quiet", 1, "")]
    dev_cuts.append(replace(cut("beyond-dev", 1), duration=3.0))
    dev = manifest(tmp_path / "dev.jsonl", dev_cuts)
    data = module(
        path, f"data.train={train}", f"data.dev={dev}", "data.max_duration_s=3", "model.decoder.max_length=40",
        frames_per_s=10,
    )  # fmt: skip
    expected = {id: reason for id, (_, reason) in bad.items()}
    expected["hour"] = "dev cut of 31.0 s is longer than a window of 30 s"
    expected["wordy-dev"] = expected["wordy"]
    expected["beyond-dev"] = "it goes from 0.00 to 3.00 s, but its recording lasts 1.00 s"
    assert dict(data.dropped) == expected
    assert [c.id for c in data.train_cuts] == ["good", "exact", "slowed", "rounded"]
    assert [c.id for c in data.dev_cuts] == ["dev", "quiet"]


def test_data_without_usable_cuts_is_refused(path: Path, tmp_path: Path) -> None:
    bad = manifest(tmp_path / "bad.jsonl", [cut("a", 31), cut("b", 60)])
    for split in ("train", "dev"):
        with pytest.raises(DataError, match=r"bad\.jsonl: every cut was left out \(.*31\.0"):
            module(path, f"data.{split}={bad}")
    with pytest.raises(DataError, match=r"train\.jsonl\.gz: no cuts in nl: there are \d+ in en, 0 without a"):
        module(path, "data.languages=[nl]")
    untold = manifest(tmp_path / "untold.jsonl", [cut("a", 1, language=None)])
    says = "untold.jsonl: no cuts in nl: there are 1 without a language; set data.languages=null"
    with pytest.raises(DataError, match=f"{says}$"):
        module(path, "data.languages=[nl]", f"data.train={untold}")


def test_single_cut_gives_batches_of_one(path: Path, tmp_path: Path) -> None:
    one = manifest(tmp_path / "one.jsonl", list(read_cuts(path.parent / "train.jsonl.gz"))[:1])
    assert [batch.ids for batch in module(path, f"data.train={one}").train_dataloader()] == [["train-0"]] * 3


@pytest.mark.parametrize("overrides", [(), ("data.batch_size=2",), ("data.batch_duration_s=2",)])
def test_dev_batches_cover_dev_once_within_the_budget(
    path: Path, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.data.module.LEAST_DEV_S", 0.0)
    data = module(path, *overrides)
    batches = list(data.val_dataloader())
    assert sorted(id for batch in batches for id in batch.ids) == [f"dev-{i}" for i in range(4)]
    for batch in batches:
        assert len(batch.ids) == 1 or batch.audio_BN.numel() <= data.config.data.batch_duration_s * RATE
        assert len(batch.ids) <= (data.config.data.batch_size or 4)
        assert not batch.applied
    assert [c.id for c in data.dev_cuts] == [f"dev-{i}" for i in range(4)]


def test_small_batches_of_training_do_not_make_small_batches_of_dev(path: Path) -> None:
    data = module(path, "data.batch_duration_s=2")
    assert [sorted(batch.ids) for batch in data.val_dataloader()] == [[f"dev-{i}" for i in range(4)]]


def test_processes_split_the_dev_set_and_the_batch_budget(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr("asr.data.module.LEAST_DEV_S", 0.0)
    for rank in range(3):
        monkeypatch.setattr(SpeechData, "share", Share(rank, 3))
        data = module(path, "data.batch_duration_s=6")
        batches = list(data.val_dataloader())
        assert all(len(batch.ids) == 1 or batch.audio_BN.numel() <= 2 * RATE for batch in batches)
        found += [id for batch in batches for id in batch.ids]
    assert set(found) == {f"dev-{i}" for i in range(4)}


@pytest.mark.parametrize(
    "overrides",
    [
        ("augment.join=0.9",),
        ("augment.join=0", "augment.speeds=[0.8, 1.0]"),
        ("augment.join=0", "augment.speeds=[0.5, 1.0]", "data.max_duration_s=2.5"),
        ("augment.join=0", "augment.speeds=[1.2]"),
    ],
)
def test_largest_batch_is_at_least_as_long_as_any_other(path: Path, overrides: tuple[str, ...]) -> None:
    data = module(path, *overrides)
    largest, coming = data.largest_batch(), list(data.train_dataloader())
    longest = largest.audio_BN.shape[1]
    assert longest >= max(batch.audio_BN.shape[1] for batch in coming)
    longest_target = data.dev_batch(data.train_cuts).tokens_BL.shape[1]
    assert largest.tokens_BL.shape[1] >= longest_target + 5 * (data.config.augment.join > 0)
    assert largest.audio_len_B.tolist() == [longest] * len(largest.ids)
    budget = data.config.data.batch_duration_s * RATE
    assert len(largest.ids) * longest <= budget < (len(largest.ids) + 1) * longest


def test_joined_targets_fit_the_decoder_and_ctc(path: Path) -> None:
    data = module(path, "augment.join=0.9", "model.decoder.max_length=14", frames_per_s=15)
    batches = list(data.train_dataloader())
    assert sum(batch.applied.get("join", 0) for batch in batches) > 10
    for batch in batches:
        assert batch.tokens_BL.shape[1] <= 14
        for samples, tokens in zip(batch.audio_len_B.tolist(), batch.text_len_B.tolist(), strict=True):
            assert tokens <= 15 * samples / RATE + 1
    assert data.largest_batch().tokens_BL.shape[1] == 14


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_audio_is_one_line_from_any_worker(path: Path, tmp_path: Path, workers: int) -> None:
    (tmp_path / "torn.wav").write_bytes(b"torn")
    train = manifest(tmp_path / "train.jsonl", [cut("torn", 1, path=tmp_path / "torn.wav")])
    with pytest.raises(AudioError, match=r"torn\.wav: ") as caught:
        list(module(path, f"data.train={train}", f"data.workers={workers}").train_dataloader())
    assert str(caught.value).isprintable()


# ---- batches --------------------------------------------------------------------------------------------------


def test_time_waiting_for_batches_is_counted_and_restored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(path)
    assert data.waited_s == 0.0
    plain = data.examples.augmented

    def late(cut: Cut, epoch: int) -> Example:
        time.sleep(0.02)
        return plain(cut, epoch)

    monkeypatch.setattr(data.examples, "augmented", late)
    seen = sum(len(batch.ids) for batch in itertools.islice(data.train_dataloader(), 4))
    assert data.waited_s >= 0.02 * seen
    again = module(path)
    again.load_state_dict(data.state_dict())
    assert again.waited_s == data.waited_s


def test_collate_pads_and_counts_applied_augmentations() -> None:
    long = Example("a", torch.ones(5), "hi", [1, 4, 7, 8, 2], 2, [7, 8], "transcribe", "en", ("speed", "noise"))
    short = Example("b", -torch.ones(3), "o", [1, 5, 9, 2], 2, [6, 5, 4], "translate:en", "es", ("noise",))
    batch = collate([short, long], epoch=3, index=4)
    assert batch.audio_BN.tolist() == [[-1, -1, -1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.audio_len_B.tolist() == [3, 5]
    assert batch.tokens_BL.tolist() == [[1, 5, 9, 2, 0], [1, 4, 7, 8, 2]]
    assert batch.inputs_BL.tolist() == [[1, 5, 9, 2], [1, 4, 7, 8]]
    assert batch.targets_BL.tolist() == [[5, 9, 2, 0], [4, 7, 8, 2]]
    assert batch.target_len_B.tolist() == [3, 4]
    assert [row[:n] for row, n in zip(batch.text_BL.tolist(), batch.text_len_B, strict=True)] == [[9], [7, 8]]
    assert (batch.spoken_BS.tolist(), batch.spoken_len_B.tolist()) == ([[6, 5, 4], [7, 8, 0]], [3, 2])
    assert (batch.ids, batch.texts, batch.languages) == (["b", "a"], ["o", "hi"], ["es", "en"])
    assert (batch.tasks, batch.text_languages) == (["translate:en", "transcribe"], ["en", "en"])
    assert (batch.epoch, batch.index, batch.applied) == (3, 4, {"noise": 2, "speed": 1})


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor.pin_memory is replaced, as it needs a GPU driver."""
    example = Example("a", torch.ones(5), "hi", [1, 4, 7, 8, 2], 2, [7, 8], "transcribe", "en", ("speed", "noise"))
    batch, pinned = collate([example]), []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    found = pin_memory(batch)
    assert isinstance(found, Batch)
    tensors = {
        f.name: getattr(batch, f.name) for f in fields(batch) if isinstance(getattr(batch, f.name), torch.Tensor)
    }
    assert len(pinned) == len(tensors) == 6
    for name, tensor in tensors.items():
        assert getattr(found, name) is not tensor
        assert torch.equal(getattr(found, name), tensor)
    assert replace(found, **tensors) == batch


def test_worker_says_nothing_if_nobody_takes_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *rest: shown.append(kind))
    start_worker(0)
    for error in (ConnectionResetError(), EOFError(), ValueError()):
        sys.excepthook(type(error), error, None)
    assert shown == [ValueError]

"""Corpora at a URL: the same cuts, audio and batches as on disk, and a one-line error for what cannot be read."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import asr as command
from synthetic import RATE, described, experiment, experiment_file, speech_data, untrained
from web import Web, web

import asr.files.places
from asr.checkpoint import load_model_folder
from asr.config import ExperimentConfig
from asr.data.cuts import load_audio, read_cuts
from asr.errors import ConfigError, DataError
from asr.files import files_in, is_folder, open_place, open_within, to_place


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment on 24 clips, with Shar folders of the same clips beside it."""
    path = experiment_file(tmp_path_factory.mktemp("corpus"), train=24)
    for split in ("train", "dev"):
        shards = path.parent / f"shar_{split}"
        shards.mkdir()
        read_cuts(path.parent / f"{split}.jsonl.gz").to_shar(shards, fields={"recording": "flac"}, shard_size=7)
    return path


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr.files.places, "PAUSES_S", (0.0, 0.0))


@pytest.fixture(scope="module")
def served(path: Path) -> Iterator[Web]:
    with web(path.parent) as server:
        yield server


def far(path: Path, server: Web, *overrides: str) -> ExperimentConfig:
    """Return the experiment with its corpus at URLs."""
    return experiment(
        path, f"data.train={server.url}/shar_train", f"data.dev={server.url}/shar_dev", "data.workers=0", *overrides
    )


# ---- places -----------------------------------------------------------------------------------------------------


def test_paths_stay_paths_and_urls_are_folders_or_manifests(tmp_path: Path) -> None:
    assert to_place(str(tmp_path)) == to_place(tmp_path) == tmp_path
    assert is_folder(tmp_path)
    assert not is_folder(tmp_path / "nothing")
    folder, lines = to_place("s3://bucket/corpus/shar"), to_place("https://host/cuts.jsonl.gz")
    assert is_folder(folder)
    assert not is_folder(lines)
    assert str(folder) == "s3://bucket/corpus/shar"
    assert to_place(folder) == folder


@pytest.mark.parametrize("url", ["file:///etc", "ssh://host/x", "zip://x::s3://y", "simplecache::s3://x", "dask://x"])
def test_unsupported_protocols_are_refused(path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r":// is not one of http, https, s3,"):
        to_place(url)
    with pytest.raises(ConfigError, match=r"'data\.train': [\w:/]+:// is not one of"):
        experiment(path, f"data.train={url}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://me:secret@host/shar", "names, passwords"),
        ("abfs://box@account.dfs.core.windows.net/shar", "names, passwords and accounts are not taken"),
        ("https://host/cuts.jsonl.gz?signature=x", "a URL with '::' or"),
        ("https://host/x::file:///etc", "a URL with '::' or"),
        ("http://[::1]/shar", "a URL with '::' or"),
    ],
)
def test_urls_with_credentials_or_special_syntax_are_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        to_place(url)
    assert "secret" not in str(caught.value)


def test_config_with_urls_survives_a_json_round_trip(path: Path, served: Web) -> None:
    config = far(path, served)
    again = ExperimentConfig.model_validate(json.loads(config.model_dump_json()))
    assert again == config
    assert str(again.data.train) == f"{served.url}/shar_train"


def test_remote_files_are_listed_by_name_and_read_unchanged(path: Path, served: Web) -> None:
    here, there = path.parent / "shar_train", to_place(f"{served.url}/shar_train")
    assert [p.name for p in files_in(there)] == [p.name for p in files_in(here)]
    for near, distant in zip(files_in(here), files_in(there), strict=True):
        with open_place(distant) as file:
            assert file.read() == near.read_bytes()


def test_reading_a_byte_range_fetches_only_that_range(path: Path, served: Web) -> None:
    name = "shar_train/recording.000000.tar"
    served.asked.clear()
    with open_within(to_place(f"{served.url}/{name}"), 512, 100) as file:
        assert file.read() == (path.parent / name).read_bytes()[512:612]
    assert served.asked == [(f"/{name}", "bytes=512-611")]


def test_remote_lines_are_read_in_blocks(served: Web, path: Path) -> None:
    """Not byte by byte, as `readline` reads an unbuffered file."""
    with open_place(to_place(f"{served.url}/run.yaml")) as file:
        assert isinstance(file, io.BufferedReader)
        assert file.readlines() == (path.parent / "run.yaml").read_bytes().splitlines(keepends=True)


# ---- training data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shar_train", "train.jsonl.gz"])
def test_remote_cuts_and_audio_equal_those_on_disk(path: Path, served: Web, name: str) -> None:
    here, there = (list(read_cuts(to_place(f"{root}/{name}"))) for root in (path.parent, served.url))
    assert described(there) == described(here)
    for near, distant in zip(here[:5], there, strict=False):
        torch.testing.assert_close(load_audio(distant, RATE), load_audio(near, RATE), atol=0, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_remote_batches_equal_those_of_the_folder(path: Path, served: Web, workers: int) -> None:
    options = ("trainer.max_epochs=2", f"data.workers={workers}")
    near = experiment(
        path, f"data.train={path.parent / 'shar_train'}", f"data.dev={path.parent / 'shar_dev'}", *options
    )
    here, there = (
        list(speech_data(config, untrained(config)).train_dataloader())
        for config in (near, far(path, served, *options))
    )
    assert len(here) == len(there) > 4
    for ours, theirs in zip(here, there, strict=True):
        assert ours.ids == theirs.ids
        assert torch.equal(ours.audio_BN, theirs.audio_BN)


def test_a_model_is_trained_and_evaluated_from_urls(path: Path, served: Web, tmp_path: Path) -> None:
    urls = [f"data.{split}={served.url}/shar_{split}" for split in ("train", "dev")]
    trained = command("train", path, f"out={tmp_path}", *urls, "trainer.max_steps=2")
    assert trained.status == 0, trained.err
    assert any(line.startswith(f"next: asr evaluate {served.url}/shar_dev --model") for line in trained.err)
    load_model_folder(tmp_path / "model")
    assert command("evaluate", f"{served.url}/shar_dev", "--model", tmp_path / "model").status == 0
    assert len((tmp_path / "model" / "hyp.jsonl").read_text().splitlines()) == 4
    refused = command("evaluate", "file:///etc", "--model", tmp_path / "model")
    assert refused.status == 2
    assert "file:// is not one of http" in refused.err[-1]


# ---- errors ----------------------------------------------------------------------------------------------------


def expect_line(url: str, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern) as caught:
        read_cuts(to_place(url))
    assert "\n" not in str(caught.value)


def test_missing_places_are_reported_in_one_line(served: Web) -> None:
    expect_line(f"{served.url}/nothing", rf"^{re.escape(served.url)}/nothing: cannot be read \(FileNotFoundError")
    expect_line(f"{served.url}/nothing.jsonl.gz", r"/nothing\.jsonl\.gz: cannot be read \(\w+Error: 404")
    expect_line("http://127.0.0.1:1/shar", r"^http://127\.0\.0\.1:1/shar: cannot be read \(ConnectionRefusedError: ")
    expect_line("az://bucket/shar", r"^az://bucket/shar: cannot be read \(\w+Error: .*adlfs")


def test_failed_requests_are_retried_a_limited_number_of_times(served: Web, path: Path) -> None:
    place = to_place(f"{served.url}/run.yaml")
    for failures in (1, 2):
        served.busy = failures
        with open_within(place, 0, 9) as file:
            assert file.read() == path.read_bytes()[:9]
    served.busy = 3
    with pytest.raises(DataError, match=r"run\.yaml: cannot be read \(\w+: 503"):
        open_within(place, 0, 9)
    assert served.busy == 0


def test_response_longer_than_the_requested_range_is_an_error(path: Path) -> None:
    with web(path.parent) as server:
        server.more = 1
        with pytest.raises(DataError, match=r"run\.yaml: asked for 9 bytes from 0 on, it gives 10"):
            open_within(to_place(f"{server.url}/run.yaml"), 0, 9)


def test_unsafe_names_in_a_remote_folder_are_skipped(tmp_path: Path) -> None:
    names = ["cuts.000000.jsonl.gz", "zip::x", "data:,x", "a b", f"cuts.{'1' * 200}.jsonl"]
    for name in names:
        (tmp_path / name).touch()
    with web(tmp_path) as server:
        found = files_in(to_place(server.url + "/"))
        assert [place.name for place in found] == [names[0], names[-1]]
        expect_line(f"{server.url}/", r": no recording\.000000\.tar")


def test_server_without_byte_ranges_is_reported_in_one_line(path: Path) -> None:
    with web(path.parent) as server:
        server.parts = False
        cuts = list(read_cuts(to_place(f"{server.url}/shar_dev")))  # small enough to be fetched whole
        with pytest.raises(DataError, match=r"recording\.000000\.tar: asked for \d+ bytes") as caught:
            load_audio(cuts[0], RATE)
    assert "\n" not in str(caught.value)


def test_file_that_disappears_while_being_read_is_an_error(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path.parent / "shar_dev", tmp_path / "shar")
    with web(tmp_path) as server:
        cuts = list(read_cuts(to_place(f"{server.url}/shar")))
        (tmp_path / "shar" / "recording.000000.tar").unlink()
        with pytest.raises(DataError, match=r"recording\.000000\.tar: cannot be read"):
            load_audio(cuts[0], RATE)

"""Batches decoded in parallel: results in order, items read only a little ahead, cores divided among workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from asr.recognizer import parallel
from asr.recognizer.parallel import Workers

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_two_items_run_concurrently_and_results_keep_their_order() -> None:
    both = threading.Barrier(2, timeout=20)  # passes when two wait together, else raises
    with Workers(CPU) as workers:
        found = list(workers.map(lambda i: both.wait() >= 0 and i * i, range(6)))
    assert found == [(i, i * i) for i in range(6)]


def test_threads_are_divided_among_workers_and_restored() -> None:
    with Workers(CPU) as workers:
        assert [count for _, count in workers.map(lambda _: torch.get_num_threads(), range(4))] == [2] * 4
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


def test_an_accelerator_has_one_worker() -> None:
    assert Workers(torch.device("cuda")).count == 1


def test_items_are_read_at_most_one_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORKERS", 1)
    taken: list[int] = []
    with Workers(CPU) as workers:
        results = workers.map(str, (taken.append(i) or i for i in range(9)))
        assert next(results) == (0, "0")
        assert taken in ([0], [0, 1])  # 0 may finish before 1 is requested


def test_results_are_yielded_while_items_are_still_read() -> None:
    found: list[tuple[int, str]] = []

    def read() -> Iterator[int | None]:
        yield 1
        until_s = time.monotonic() + 20
        while not found and time.monotonic() < until_s:
            yield None
        assert found == [(1, "1")]
        yield 2

    with Workers(CPU) as workers:
        for done in workers.as_read(str, read()):
            found += [] if done is None else [done]
    assert found == [(1, "1"), (2, "2")]


def test_error_propagates_and_queued_items_are_not_run() -> None:
    done: list[int] = []

    def work(i: int) -> None:
        if i == 0:
            raise ValueError("no")
        done.append(i)

    with pytest.raises(ValueError, match="no"), Workers(CPU) as workers:
        list(workers.map(work, range(50)))
    assert len(done) <= 3
    assert torch.get_num_threads() == 4


def test_cores_are_given_back_if_runs_overlap() -> None:
    def run() -> Iterator[int]:
        with Workers(CPU) as workers:
            yield from (count for _, count in workers.map(lambda _: torch.get_num_threads(), range(4)))

    assert list(zip(run(), run(), strict=True)) == [(2, 2)] * 4
    assert torch.get_num_threads() == 4

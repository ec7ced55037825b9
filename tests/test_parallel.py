"""Batches side by side: in order, a few ahead, each with its share of the cores."""

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


def test_two_run_at_once_and_results_keep_their_order() -> None:
    both = threading.Barrier(2, timeout=20)  # passed by two together, or an error
    with Workers(CPU) as workers:
        found = list(workers.map(lambda i: both.wait() >= 0 and i * i, range(6)))
    assert found == [(i, i * i) for i in range(6)]


def test_cores_are_shared_and_given_back() -> None:
    with Workers(CPU) as workers:
        assert [count for _, count in workers.map(lambda _: torch.get_num_threads(), range(4))] == [2] * 4
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


def test_an_accelerator_has_one_worker() -> None:
    assert Workers(torch.device("cuda")).count == 1


def test_items_are_taken_one_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORKERS", 1)
    taken: list[int] = []
    with Workers(CPU) as workers:
        results = workers.map(str, (taken.append(i) or i for i in range(9)))
        assert next(results) == (0, "0")
        assert taken in ([0], [0, 1])  # 0 may be done before 1 is asked for


def test_results_are_given_while_items_are_read() -> None:
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


def test_an_error_comes_through_and_what_waits_is_left_undone() -> None:
    done: list[int] = []

    def work(i: int) -> None:
        if i == 0:
            raise ValueError("no")
        done.append(i)

    with pytest.raises(ValueError, match="no"), Workers(CPU) as workers:
        list(workers.map(work, range(50)))
    assert len(done) <= 3
    assert torch.get_num_threads() == 4

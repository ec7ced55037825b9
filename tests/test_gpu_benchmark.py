"""benchmarks/gpu.py on the CPU with a tiny model, since no machine of the tests has a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks import gpu


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], list[list[str]]]:
    """Measure batches of these seconds and return the cells of the printed rows."""
    monkeypatch.setattr(gpu, "matrix_rate", lambda *_: 1e12)
    monkeypatch.setattr(gpu, "SIZE", {**gpu.SIZE, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 8})

    def printed(audio: str) -> list[list[str]]:
        gpu.main(audio, dim=8, heads=2, steps=1, device="cpu")
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]

    return printed


def test_each_batch_has_a_row(table: Callable[[str], list[list[str]]]) -> None:
    (row,) = table("8")
    assert row[1] == "1"
    assert float(row[2]) > 0


def test_a_batch_that_does_not_fit_costs_only_its_own_row(
    table: Callable[[str], list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    step_of = gpu.step_of

    def too_large(model: nn.Module, loss_of: gpu.LossOf, batch: gpu.StepBatch, *, bf16: bool) -> Callable[[], None]:
        if len(batch.len_B) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step_of(model, loss_of, batch, bf16=bf16)

    monkeypatch.setattr(gpu, "step_of", too_large)
    large, small = table("16,8")
    assert large[1:] == ["2", "out of memory", "", "", "", "", "", ""]
    assert float(small[2]) > 0


def test_fused_attention_counts_like_matrix_products() -> None:
    batch, size = gpu.make_batch(1), {**gpu.SIZE, "dim": 8, "feed_forward": 8, "encoder_layers": 1, "decoder_layers": 1}
    counts = []
    for by_products in (True, False):
        model, loss_of = gpu.build("ctc", by_products=by_products, size=size)
        counts.append(gpu.flop_of(gpu.step_of(model, loss_of, batch, bf16=False)))
    assert counts[0] == counts[1]

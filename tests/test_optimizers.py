"""Optimisers and schedules against their formulas, also when restored from training states."""

from __future__ import annotations

import io
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from synthetic import experiment, experiment_file
from torch import Tensor

from asr.checkpoint import load_state, save_state
from asr.config import OptimizerConfig, PlateauConfig
from asr.errors import ConfigError
from asr.training.logs import read_metrics
from asr.training.optimizers import build_optimizer
from asr.training.plots import draw_learning_curves
from asr.training.run import train
from asr.training.schedule import Plateau, build_schedule
from asr.training.states import states_in

LR, DECAY, STEPS = 0.1, 0.02, 7


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


# ---- optimisers -----------------------------------------------------------------------------------------------


def gradient(w: Tensor) -> Tensor:
    return torch.tensor([1.0, 4.0, -2.0]) * (w - torch.tensor([3.0, -1.0, 0.5])) + w.sin()


def sgd(w: Tensor, *, momentum: float = 0.0, nesterov: bool = False) -> Tensor:
    v = torch.zeros(3)
    for _ in range(STEPS):
        g = gradient(w) + DECAY * w
        v = momentum * v + g
        w = w - LR * (g + momentum * v if nesterov else v)
    return w


def adagrad(w: Tensor) -> Tensor:
    squares = torch.zeros(3)
    for _ in range(STEPS):
        g = gradient(w) + DECAY * w
        squares = squares + g**2
        w = w - LR * g / (squares.sqrt() + 1e-10)
    return w


def rmsprop(w: Tensor) -> Tensor:
    squares, v = torch.zeros(3), torch.zeros(3)
    for _ in range(STEPS):
        g = gradient(w) + DECAY * w
        squares = 0.99 * squares + 0.01 * g**2
        v = 0.5 * v + g / (squares.sqrt() + 1e-8)
        w = w - LR * v
    return w


def adam(w: Tensor, *, decoupled: bool) -> Tensor:
    m, squares = torch.zeros(3), torch.zeros(3)
    for t in range(1, STEPS + 1):
        g = gradient(w) + (0.0 if decoupled else DECAY * w)
        w = w * (1 - LR * DECAY) if decoupled else w
        m, squares = 0.8 * m + 0.2 * g, 0.9 * squares + 0.1 * g**2
        w = w - LR * (m / (1 - 0.8**t)) / ((squares / (1 - 0.9**t)).sqrt() + 1e-8)
    return w


EXPECTED: dict[str, tuple[dict[str, Any], Any]] = {
    "sgd": ({}, sgd),
    "sgd with momentum": ({"momentum": 0.7}, lambda w: sgd(w, momentum=0.7)),
    "sgd with Nesterov momentum": ({"momentum": 0.7, "nesterov": True}, lambda w: sgd(w, momentum=0.7, nesterov=True)),
    "adagrad": ({}, adagrad),
    "rmsprop": ({"momentum": 0.5}, rmsprop),
    "adam": ({"betas": (0.8, 0.9)}, lambda w: adam(w, decoupled=False)),
    "adamw": ({"betas": (0.8, 0.9)}, lambda w: adam(w, decoupled=True)),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("cut", [0, 3])
def test_optimiser_matches_its_formula_across_a_saved_state(name: str, cut: int, tmp_path: Path) -> None:
    options, expected = EXPECTED[name]
    config = OptimizerConfig.model_validate({"kind": name.split()[0], **options})
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0, -3.0]))
    start = w.detach().clone()

    def made() -> torch.optim.Optimizer:
        return build_optimizer(config, [{"params": [w], "lr": LR, "weight_decay": DECAY}])

    optimizer = made()
    for step in range(STEPS):
        if cut and step == cut:
            save_state(tmp_path / "state.safetensors", {"optimizer": optimizer.state_dict()})
            optimizer = made()
            optimizer.load_state_dict(load_state(tmp_path / "state.safetensors")["optimizer"])
        w.grad = gradient(w.detach())
        optimizer.step()
    torch.testing.assert_close(w.detach(), expected(start), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("{kind: sgd, betas: [0.8, 0.9]}", "betas are for kind=adam and kind=adamw"),
        ("{momentum: 0.9}", "momentum is for kind=sgd and kind=rmsprop: with adamw give betas"),
        ("{kind: sgd, nesterov: true}", "nesterov=true needs kind=sgd and a momentum above 0"),
        ("{plateau: {patience: 5}}", "plateau is for schedule=plateau, not inverse_sqrt"),
        ("{kind: lion}", r"optimizer\.kind.*'sgd', 'adagrad', 'rmsprop', 'adam' or 'adamw'"),
    ],
)
def test_options_of_other_kinds_are_refused(path: Path, options: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        experiment(path, f"optimizer={options}")


# ---- schedules ------------------------------------------------------------------------------------------------


def test_warm_up_with_inverse_square_root_equals_noam() -> None:
    dim, warmup = 512, 40
    config = OptimizerConfig(lr=(dim * warmup) ** -0.5, warmup_steps=warmup)
    ours = build_schedule(config, None)
    for step in (1, 2, 39, 40, 41, 100, 5000):
        noam = dim**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert config.lr * ours(step - 1) == pytest.approx(noam)


def test_constant_and_cosine_schedules() -> None:
    constant = build_schedule(OptimizerConfig(schedule="constant", warmup_steps=4), None)
    assert [constant(step) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = build_schedule(OptimizerConfig(schedule="cosine", warmup_steps=0, final_lr_share=0.2), 10)
    assert [cosine(step) for step in (0, 5, 10, 11)] == pytest.approx([1.0, 0.6, 0.2, 0.2])


@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_schedule_decays_like_that_of_torch(patience: int) -> None:
    draw = random.Random(patience)
    found = [draw.choice([5.0, 4.0, 3.0, 2.0, math.nan]) + 10 / (1 + n) for n in range(40)]
    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, factor=0.5, patience=patience, threshold=0.0, min_lr=0.1, eps=0.0
    )
    config = OptimizerConfig(
        schedule="plateau", warmup_steps=0, final_lr_share=0.1, plateau=PlateauConfig(metric="loss", patience=patience)
    )
    ours = build_schedule(config, None)
    seen = set()
    for value in found:
        scheduler.step(value)
        ours.validated(value, 0.0)
        assert ours(0) == theirs.param_groups[0]["lr"]
        seen.add(ours(0))
    assert seen == {1.0, 0.5, 0.25, 0.125, 0.1}


def test_resumed_plateau_run_equals_an_uninterrupted_one(path: Path, tmp_path: Path) -> None:
    """The shorter run validates once more at its end than the whole run does at that step."""

    def run(name: str, steps: int) -> tuple[dict[str, Tensor], list[dict[str, Any]], dict[int, str]]:
        out, kind = tmp_path / name, "kind: sgd, momentum: 0.9, lr: 0.01, warmup_steps: 2"
        overrides = (
            f"optimizer={{{kind}, schedule: plateau, plateau: {{patience: 0}}}}",
            *("trainer.max_epochs=null", f"trainer.max_steps={steps}", "trainer.validate_every_steps=2"),
            *(f"out={out}", "trainer.plot_utterances=0", "trainer.log_every_steps=1"),
        )
        train(experiment(path, *overrides), Console(file=io.StringIO()))
        state = load_state(states_in(out / "states")[-1][1])
        assert state["global_step"] == steps
        rates = {int(row["step"]): row["lr-SGD/pg1"] for row in read_metrics(out / "logs") if row.get("lr-SGD/pg1")}
        return state["state_dict"], state["lr_schedulers"], rates

    run("again", 5)
    weights, schedulers, rates = run("whole", 7)
    weights_again, schedulers_again, rates_again = run("again", 7)
    assert schedulers[0]["lr_lambdas"][0]["share"] == 0.25
    assert set(rates.values()) == {"0.01", "0.005"}
    assert [key for key in weights if not torch.equal(weights[key], weights_again[key])] == []
    assert schedulers_again == schedulers
    assert rates_again == rates


def test_plateau_state_consists_of_plain_values() -> None:
    plateau = Plateau(3, PlateauConfig(), 0.0)
    assert all(isinstance(value, int | float | str) for value in vars(plateau).values())


def test_learning_rate_panel_shows_any_optimiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("asr.training.plots.save", lambda figure, path: drawn.append(figure))
    for name in ("lr-AdamW/pg1", "lr-RMSprop", "lr-SGD-momentum"):
        folder = tmp_path / name.replace("/", "-")
        (folder / "start-01").mkdir(parents=True)
        (folder / "start-01" / "metrics.csv").write_text(f"step,{name},lr-AdamW/pg2\n1,0.5,9\n2,0.25,9\n")
        draw_learning_curves(folder, tmp_path / "curves.png")
        *_, axis = drawn[-1].axes
        shown = [line.get_ydata().tolist() for line in axis.lines]
        assert shown == ([] if "momentum" in name else [[0.5, 0.25]])

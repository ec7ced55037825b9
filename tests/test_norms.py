"""Norms against their formulas, their places in layers, and their running statistics after bad steps and interrupted
runs.
"""

from __future__ import annotations

import io
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from synthetic import experiment, experiment_file, untrained
from test_task import Combine, prepared
from torch import Tensor, nn

from asr.checkpoint import load_state, save_model_folder
from asr.data.batch import Batch
from asr.errors import ConfigError
from asr.lengths import within
from asr.model import build
from asr.model.attention import CrossAttention, Form, SelfAttention
from asr.model.decoder import DecoderLayer
from asr.model.encoder import EncoderLayer
from asr.model.layers import FeedForward, Placement, PostNorm, PreNorm
from asr.model.masks import causal, log_weight
from asr.model.norms import BatchNorm, PowerNorm, RMSNorm
from asr.model.rows import Rows
from asr.training.run import train
from asr.training.start import starting_point
from asr.training.states import states_in
from asr.training.task import SpeechTask

LENGTHS = [5, 2, 4]


def padded(seed: int, dim: int = 6) -> tuple[Tensor, Rows]:
    """Return sequences with large numbers in the padding and a scale and mean of its own for each element."""
    draw = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(len(LENGTHS), 5, dim, generator=draw) * torch.rand(dim, generator=draw) * 3
    x_BTD += torch.randn(dim, generator=draw)
    for x_TD, length in zip(x_BTD, LENGTHS, strict=True):
        x_TD[length:] = 1e6
    return x_BTD, Rows(torch.tensor(LENGTHS), 5)


def jolted(norm: nn.Module) -> nn.Module:
    """Replace the norm's initial weights with random ones."""
    for seed, weight in enumerate(norm.parameters()):
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return norm


# ---- formulas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_matches_its_formula_in_every_precision(dtype: torch.dtype) -> None:
    norm, x_ND = jolted(RMSNorm(6)), 1e-2 * torch.randn(20, 6)
    assert isinstance(norm, RMSNorm)
    expected = x_ND / (x_ND.square().sum(1, keepdim=True) / 6 + 1e-5).sqrt() * norm.weight
    found = norm.to(dtype)(x_ND.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=1e-6 if dtype == torch.float32 else 0.05, rtol=0)


def test_batch_norm_equals_torch_on_all_real_frames() -> None:
    ours, theirs = jolted(BatchNorm(6)), jolted(nn.BatchNorm1d(6))
    for seed in range(3):
        x_BTD, rows = padded(seed)
        x_BTD.requires_grad_()
        real_ND = torch.cat([x_TD[:n] for x_TD, n in zip(x_BTD.detach(), LENGTHS, strict=True)]).requires_grad_()
        found, expected = ours(rows.pack(x_BTD)), theirs(real_ND)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        found.sin().sum().backward()
        expected.sin().sum().backward()
        assert x_BTD.grad is not None
        torch.testing.assert_close(rows.pack(x_BTD.grad), real_ND.grad, atol=1e-5, rtol=0)
        assert not x_BTD.grad[1, 2:].any()
    torch.testing.assert_close(ours.mean_D, theirs.running_mean)
    torch.testing.assert_close(ours.variance_D, theirs.running_var)
    x_BLD = torch.randn(2, 3, 6)
    torch.testing.assert_close(ours.eval()(x_BLD), theirs.eval()(x_BLD.transpose(1, 2)).transpose(1, 2))


def test_batch_norm_of_a_single_row_uses_running_statistics() -> None:
    norm, x_1D = jolted(BatchNorm(6)), torch.randn(1, 6)
    assert torch.equal(norm(x_1D), norm.eval()(x_1D))
    assert torch.equal(norm.variance_D, torch.ones(6))


def test_power_norm_follows_the_algorithm_of_the_paper() -> None:
    """Algorithm 2 of Shen et al. 2020 after a warm-up with PN-V, in plain numbers for each element."""
    norm, warmup, alpha, eps = jolted(PowerNorm(3, warmup=2)), 2, 0.9, 1e-5
    squares, gradients = [1.0] * 3, [0.0] * 3
    for step in range(6):
        draw = torch.Generator().manual_seed(step)
        x_ND, dy_ND = torch.randn(5, 3, generator=draw) + 0.5, torch.randn(5, 3, generator=draw)
        x_ND.requires_grad_()
        norm.zero_grad()
        found = norm(x_ND)
        found.backward(dy_ND)
        assert x_ND.grad is not None
        for d in range(3):
            x, dy = x_ND[:, d].tolist(), dy_ND[:, d].tolist()
            gamma, beta = norm.weight[d].item(), norm.bias[d].item()
            own = sum(v * v for v in x) / 5
            psi = math.sqrt((own if step < warmup else squares[d]) + eps)
            hat = [v / psi for v in x]
            assert found[:, d].tolist() == pytest.approx([gamma * v + beta for v in hat], abs=1e-5)
            into = [gamma * g for g in dy]
            along = sum(g * v for g, v in zip(into, hat, strict=True)) / 5
            nu = along if step < warmup else gradients[d]
            wanted = [(g - nu * v) / psi for g, v in zip(into, hat, strict=True)]
            assert x_ND.grad[:, d].tolist() == pytest.approx(wanted, abs=1e-5)
            assert float(norm.weight.grad[d]) == pytest.approx(sum(map(math.prod, zip(dy, hat, strict=True))), abs=1e-5)
            assert float(norm.bias.grad[d]) == pytest.approx(sum(dy), abs=1e-5)
            squares[d] = alpha * squares[d] + (1 - alpha) * own
            gradients[d] *= 1 - (1 - alpha) * sum(v * v for v in hat) / 5
            gradients[d] += (1 - alpha) * along
    assert norm.square_D.tolist() == pytest.approx(squares, abs=1e-5)
    assert norm.gradient_D.tolist() == pytest.approx(gradients, abs=1e-5)
    x_BLD = torch.randn(2, 3, 3)
    expected = x_BLD / (torch.tensor(squares) + eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm.eval()(x_BLD), expected, atol=1e-5, rtol=0)


def test_power_norm_gradient_is_exact_during_warm_up() -> None:
    norm, x_ND = PowerNorm(6), torch.randn(7, 6, requires_grad=True)
    (found,) = torch.autograd.grad(norm(x_ND).sin().sum(), x_ND)
    (expected,) = torch.autograd.grad((x_ND / (x_ND.square().mean(0) + 1e-5).sqrt()).sin().sum(), x_ND)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# ---- places of norms ------------------------------------------------------------------------------------------


def with_weights_of(
    layer: EncoderLayer | DecoderLayer,
    theirs: nn.Module,
    attentions: dict[str, tuple[list[nn.Linear], nn.Linear]],
    placements: list[Placement],
) -> nn.Module:
    """Give torch's layer the weights of ours; `attentions`: by torch's names, the maps before and after each."""
    parts: dict[str, nn.Module] = {"linear1": layer.feed_forward[0], "linear2": layer.feed_forward[3]}
    parts |= {f"{name}.out_proj": out for name, (_, out) in attentions.items()}
    parts |= {f"norm{i}": placement.norm for i, placement in enumerate(placements, 1)}
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    for name, (maps, _) in attentions.items():
        state[f"{name}.in_proj_weight"] = torch.cat([m.weight for m in maps])
        state[f"{name}.in_proj_bias"] = torch.cat([m.bias for m in maps])
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("kind", [PreNorm, PostNorm])
@torch.no_grad()
def test_transformer_layers_equal_those_of_torch(kind: type[Placement]) -> None:
    torch.manual_seed(0)
    residual = partial(kind, nn.LayerNorm)
    one, two = (FeedForward(6, 9, nn.GELU(), 0.0) for _ in range(2))
    encoder = EncoderLayer(6, SelfAttention(6, 2), one, residual, 0.0)
    decoder = DecoderLayer(6, SelfAttention(6, 2), CrossAttention(6, 2, Form()), two, residual, 0.0)
    for weight in (*encoder.parameters(), *decoder.parameters()):
        weight.copy_(torch.randn(weight.shape))
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": kind is PreNorm}
    their_encoder = with_weights_of(
        encoder,
        nn.TransformerEncoderLayer(6, 2, 9, **options),
        {"self_attn": ([encoder.attention.qkv], encoder.attention.out)},
        [encoder.attention_residual, encoder.feed_forward_residual],
    )
    own, cross = decoder.self_attention, decoder.cross_attention
    their_decoder = with_weights_of(
        decoder,
        nn.TransformerDecoderLayer(6, 2, 9, **options),
        {"self_attn": ([own.qkv], own.out), "multihead_attn": ([cross.query, cross.key_value], cross.out)},
        [decoder.self_residual, decoder.cross_residual, decoder.feed_forward_residual],
    )

    x_BTD, y_BLD, rows, text = torch.randn(3, 5, 6), torch.randn(3, 4, 6), Rows(torch.tensor(LENGTHS), 5), [4, 1, 3]
    padding_BT, words = ~within(torch.tensor(LENGTHS), 5), Rows(torch.tensor(text), 4)
    weight_B11T = log_weight(~padding_BT)[:, None, None]
    expected = their_encoder(x_BTD, src_key_padding_mask=padding_BT)
    found = encoder(rows.pack(x_BTD), rows, weight_B11T)
    torch.testing.assert_close(found, rows.pack(expected), atol=1e-4, rtol=0)
    later_LL = torch.ones(4, 4, dtype=torch.bool).triu(1)
    expected = their_decoder(y_BLD, x_BTD, tgt_mask=later_LL, memory_key_padding_mask=padding_BT)
    memory, causal_LL = cross.project_memory(x_BTD), causal(4, x_BTD.device)
    found, _ = decoder(words.pack(y_BLD), words, causal_LL, memory, weight_B11T, None)
    torch.testing.assert_close(found, words.pack(expected), atol=1e-4, rtol=0)


# ---- running statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BatchNorm, partial(PowerNorm, warmup=0)])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_nonfinite_row_leaves_finite_statistics(kind: Any, bad: float) -> None:
    norm, x_ND = kind(3), torch.randn(4, 3)
    norm(x_ND)
    x_ND[2] = bad
    norm(x_ND.requires_grad_()).sum().backward()
    assert all(value.isfinite().all() for value in norm.buffers())


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_nonfinite_loss_leaves_finite_statistics_of_gradients(bad: float) -> None:
    norm, x_ND = PowerNorm(3, warmup=0), torch.randn(4, 3, requires_grad=True)
    norm(x_ND).square().sum().backward()
    before_D = norm.gradient_D.clone()
    (norm(x_ND) * bad).sum().backward()
    assert before_D.all()
    assert torch.equal(norm.gradient_D, before_D)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


def test_resumed_run_equals_an_uninterrupted_one(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With accumulation, past the warm-up and one bad step, interrupted between the batches of a step."""
    monkeypatch.setitem(build._NORMS, "power", partial(PowerNorm, warmup=4))
    whole: Combine = SpeechTask.combine
    until = math.inf

    def combine(task: SpeechTask, found: dict[str, Tensor], batch: Batch) -> Tensor:
        if task.batches_seen == until:
            raise OSError("cut off")
        return whole(task, found, batch) * (math.inf if task.batches_seen == 3 else 1)

    monkeypatch.setattr(SpeechTask, "combine", combine)

    def run(name: str) -> dict[str, Tensor]:
        kinds = ("model.encoder.normalization=batch", "model.decoder.normalization=power")
        steps = ("trainer.max_steps=4", "trainer.save_every_steps=2", "trainer.accumulate=2")
        others = ("trainer.plot_utterances=0", f"out={tmp_path / name}")
        train(experiment(path, *kinds, *steps, *others), Console(file=io.StringIO()))
        state = load_state(states_in(tmp_path / name / "states")[-1][1])
        assert state["global_step"] == 4
        return state["state_dict"]

    expected = run("whole")
    until = 6
    with pytest.raises(OSError, match="cut off"):
        run("resumed")
    assert [step for step, _ in states_in(tmp_path / "resumed" / "states")] == [2]
    until = math.inf
    found = run("resumed")
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    for name in ("encoder.norm.variance_D", "decoder.norm.square_D", "decoder.norm.gradient_D"):
        assert expected[f"model.{name}"].isfinite().all()
        assert not torch.equal(expected[f"model.{name}"], torch.ones(16))
    assert expected["model.decoder.norm.batches"] == 8


@pytest.mark.parametrize("kind", ["batch", "power"])
def test_frozen_norms_keep_their_statistics(path: Path, kind: str) -> None:
    kinds = (f"model.encoder.normalization={kind}", f"model.decoder.normalization={kind}")
    task, data = prepared(path, *kinds, "optimizer.parts={encoder: 0}")
    before = {name: value.clone() for name, value in task.model.named_buffers()}
    task.losses(data.largest_batch())
    moved = {name.split(".")[0] for name, value in task.model.named_buffers() if not torch.equal(value, before[name])}
    assert moved == {"decoder"}


@pytest.mark.parametrize("processes", ["devices", "nodes"])
@pytest.mark.parametrize(("part", "kind"), [("encoder", "batch"), ("decoder", "power")])
def test_batch_statistics_are_refused_with_several_processes(
    path: Path, tmp_path: Path, processes: str, part: str, kind: str
) -> None:
    chosen, several = f"model.{part}.normalization={kind}", f"trainer.{processes}=2"
    experiment(path, chosen)
    experiment(path, several)
    with pytest.raises(ConfigError, match=rf"model\.{part}\.normalization={kind} is for training in one process"):
        experiment(path, chosen, several)
    save_model_folder(tmp_path, untrained(experiment(path, chosen)))
    own = path.with_name(f"{part}.yaml")
    head, _, rest = path.read_text().partition("features:")
    own.write_text(head + "augment:" + rest.partition("augment:")[2])
    starting_point(experiment(own, f"init={tmp_path}"))
    with pytest.raises(ConfigError, match=rf"{tmp_path}: model\.{part}\.normalization={kind} is for training in one"):
        starting_point(experiment(own, f"init={tmp_path}", several))

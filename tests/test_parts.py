"""Parts of a model with their own learning rates or frozen, and models that are adapted before training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from rich.console import Console
from synthetic import experiment, experiment_file, speech_data, untrained
from test_task import Combine, fit, prepared
from torch import Tensor

from asr.checkpoint import ModelFolder, load_model_folder, load_state, save_model_folder
from asr.config import DecodeConfig, ExperimentConfig, GuardConfig
from asr.data.batch import Batch
from asr.errors import ConfigError
from asr.training.parts import PartRates
from asr.training.run import train
from asr.training.start import starting_point
from asr.training.states import states_in
from asr.training.task import SpeechTask

DEEPER = ("model.encoder.layers=2", "model.decoder.layers=2")
FROZEN = "optimizer.parts={encoder: 0, encoder.layers.1: 0.5, decoder.embedding: 0, ctc: 2}"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


def learns(name: str) -> bool:
    """Return whether FROZEN trains a weight."""
    if name.startswith("encoder."):
        return name.startswith("encoder.layers.1.")
    return name not in ("decoder.embedding.weight", "decoder.output.weight")


def said(path: Path, parts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        prepared(path, *DEEPER, f"optimizer.parts={parts}")
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---- what is trained ------------------------------------------------------------------------------------------


def test_frozen_weights_do_not_change_and_have_no_optimizer_state(path: Path) -> None:
    task, data = prepared(path, *DEEPER, FROZEN, "trainer.max_steps=3")
    before = {name: weight.detach().clone() for name, weight in task.model.named_parameters()}
    fit(task, data)
    after = dict(task.model.named_parameters())
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(filter(learns, after))
    optimizer: Any = task.optimizers(use_pl_optimizer=False)
    assert {id(weight) for weight in optimizer.state} == {id(after[name]) for name in filter(learns, after)}
    assert task.rates.trained == sum(after[name].numel() for name in filter(learns, after))


def test_scheduled_learning_rates_are_scaled_by_part_factors(path: Path) -> None:
    task, data = prepared(
        path,
        *DEEPER,
        "optimizer={lr: 0.01, warmup_steps: 4, weight_decay: 0.25, parts: {ctc: 2, encoder: 0.5}}",
    )
    names = {weight: name for name, weight in task.model.named_parameters()}
    made = task.configure_optimizers()
    made["optimizer"].step()
    made["lr_scheduler"]["scheduler"].step()
    found = {}
    for group in made["optimizer"].param_groups:
        for weight in group["params"]:
            assert group["weight_decay"] == (0.25 if weight.ndim > 1 else 0.0)
            found[names[weight]] = group["lr"]
    factor = {"encoder": 0.5, "decoder": 1.0, "ctc": 2.0}
    assert found == {name: pytest.approx(0.01 * 2 / 4 * factor[name.split(".")[0]]) for name in names.values()}
    fit(task, data)


def test_factor_of_one_trains_like_no_factors(path: Path) -> None:
    plain = fit(*prepared(path, "trainer.max_steps=3"))
    ones = fit(*prepared(path, "trainer.max_steps=3", "optimizer.parts={decoder: 1}"))
    assert plain.losses == ones.losses


def test_no_gradient_is_computed_below_the_first_trained_part(path: Path) -> None:
    for parts, reached in (("{encoder: 0}", False), ("{encoder: 0, encoder.layers.1: 1}", True), ("{}", True)):
        task, data = prepared(path, *DEEPER, f"optimizer.parts={parts}")
        inside: list[bool] = []
        layers: Any = task.model.encoder.layers
        layers[0].register_forward_hook(lambda _module, _args, y, inside=inside: inside.append(y.requires_grad))
        outside: list[Tensor] = []
        task.model.encoder.register_forward_hook(lambda _module, _args, y, to=outside: to.append(y.states_BTD))
        batch = data.dev_batch(list(data.train_cuts)[:2])
        task.combine(task.losses(batch), batch).backward()
        assert inside == [parts == "{}"]
        assert outside[0].requires_grad == reached


def test_frozen_parts_stay_in_evaluation_mode(path: Path) -> None:
    task, data = prepared(path, *DEEPER, FROZEN, "trainer.max_steps=2")

    def training() -> dict[str, bool]:
        return {name: module.training for name, module in task.model.named_modules()}

    wanted = {
        name: not name.startswith(("encoder", "decoder.embedding")) or name.startswith("encoder.layers.1")
        for name in training()
    }
    assert training() == wanted
    fit(task, data)
    assert training() == wanted
    assert not any(module.training for module in task.eval().modules())
    task.train()
    assert training() == wanted


def test_tied_weights_follow_the_most_specific_part(path: Path) -> None:
    def factor(parts: str) -> float:
        task, _ = prepared(path, f"optimizer.parts={parts}")
        assert task.model.decoder.output.weight is task.model.decoder.embedding.weight
        return task.rates.factors[task.model.decoder.embedding.weight]

    assert factor("{decoder: 0.5}") == 0.5
    assert factor("{decoder: 0.5, decoder.output: 0}") == 0
    assert factor("{decoder: 0, decoder.embedding: 0.1}") == 0.1
    assert factor("{decoder.output: 0.2, decoder.embedding: 0.2}") == 0.2
    line = said(path, "{decoder.output: 1, decoder.embedding: 0}")
    assert "decoder.embedding and decoder.output share weights" in line
    task, _ = prepared(path, "optimizer.parts={decoder.output: 0}", "model.decoder.tied_output=false")
    assert not task.model.decoder.output.weight.requires_grad
    assert task.model.decoder.embedding.weight.requires_grad


def test_unknown_part_is_reported_with_the_available_ones(path: Path) -> None:
    line = said(path, "{encoder.layer.1: 0}")
    assert line.startswith("optimizer.parts: the model has no part 'encoder.layer.1' with weights; did you mean ")
    assert "'encoder.layers.1'? there are encoder, encoder.subsampling, encoder.layers, encoder.norm, decoder, " in line
    assert "no part 'front_end' with weights" in said(path, "{front_end: 0}")
    assert "no part ''" in said(path, "{'': 0}")


def test_freezing_everything_or_a_negative_factor_is_an_error(path: Path) -> None:
    assert "nothing is left to train" in said(path, "{encoder: 0, decoder: 0, ctc: 0}")
    with pytest.raises(ConfigError, match=r"optimizer\.parts\.encoder.*greater than or equal to 0"):
        experiment(path, "optimizer.parts={encoder: -1}")


def test_a_resumed_run_equals_an_uninterrupted_one(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str) -> tuple[dict[str, Tensor], Any]:
        overrides = (*DEEPER, FROZEN, "trainer.max_steps=8", "trainer.save_every_steps=3", f"out={tmp_path / name}")
        train(experiment(path, *overrides), Console(file=io.StringIO()))
        state = load_state(states_in(tmp_path / name / "states")[-1][1])
        assert state["global_step"] == 8
        return state["state_dict"], state["optimizer_states"]

    whole: Combine = SpeechTask.combine

    def combine(task: SpeechTask, found: dict[str, Tensor], batch: Batch) -> Tensor:
        if task.batches_seen == 5:
            raise OSError("cut off")
        return whole(task, found, batch)

    monkeypatch.setattr(SpeechTask, "combine", combine)
    with pytest.raises(OSError, match="cut off"):
        run("resumed")
    monkeypatch.undo()
    assert [step for step, _ in states_in(tmp_path / "resumed" / "states")] == [3]
    (weights, optimizers), (again, optimizers_again) = run("whole"), run("resumed")
    assert [name for name in weights if not torch.equal(weights[name], again[name])] == []
    assert [group["lr"] for group in optimizers[0]["param_groups"]] == [
        group["lr"] for group in optimizers_again[0]["param_groups"]
    ]
    states, states_again = optimizers[0]["state"], optimizers_again[0]["state"]
    assert states.keys() == states_again.keys()
    assert all(torch.equal(states[key][name], states_again[key][name]) for key in states for name in states[key])


# ---- initial models, given by init -----------------------------------------------------------------------------


WHISPER = ("features.kind=whisper", "features.window_s=5", "model.encoder.padding=recall")


def brought(path: Path, folder: Path, *overrides: str) -> ExperimentConfig:
    """Return an experiment that starts from a folder with an untrained Whisper-like model."""
    save_model_folder(folder, untrained(experiment(path, *WHISPER)))
    text = path.read_text()
    head, _, rest = text.partition("features:")
    own = path.with_name("brought.yaml")
    own.write_text(head + "augment:" + rest.partition("augment:")[2])
    return experiment(own, f"init={folder}", "loss.ctc_weight=0.3", "data.max_duration_s=5", *overrides)


def test_frequency_mask_as_wide_as_the_spectrum_of_init_is_refused(path: Path, tmp_path: Path) -> None:
    starting_point(brought(path, tmp_path, "augment.freq_mask_bins=19"))
    with pytest.raises(ConfigError, match=r"augment\.freq_mask_bins=20 could mask all 20 mel bins of the features"):
        starting_point(brought(path, tmp_path, "augment.freq_mask_bins=20"))


def same_weights(a: ModelFolder, b: ModelFolder, but: str = "") -> bool:
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    theirs.pop(but, None)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_adapt_changes_options_and_keeps_the_weights(path: Path, tmp_path: Path) -> None:
    as_it_is = starting_point(brought(path, tmp_path))
    assert as_it_is.config.model == load_model_folder(tmp_path).config.model
    adapted = starting_point(brought(path, tmp_path, "adapt={padding: mask, dropout: 0.25}"))
    encoder, decoder = adapted.config.model.encoder, adapted.config.model.decoder
    assert (encoder.padding, encoder.dropout, decoder.dropout) == ("mask", 0.25, 0.25)
    assert encoder.model_copy(update={"padding": "recall", "dropout": 0.1}) == as_it_is.config.model.encoder
    assert same_weights(adapted, load_model_folder(tmp_path), but="encoder.padding.silence_MXCD")
    save_model_folder(tmp_path / "again", adapted)
    assert load_model_folder(tmp_path / "again").config == adapted.config
    audio_BN, len_B = torch.randn(1, 8000), torch.tensor([8000])
    frames = [parts.model.encode(audio_BN, len_B).states_BTD.shape[1] for parts in (adapted, as_it_is)]
    assert frames[0] == 13 < frames[1], "1 s in frames of 20 ms, subsampled by four"


def test_keep_s_applies_only_to_recall_padding(path: Path, tmp_path: Path) -> None:
    longer = starting_point(brought(path, tmp_path, "adapt.keep_s=1"))
    assert longer.config.model.encoder.keep_s == 1
    with pytest.raises(ConfigError, match=r"with what adapt changes: 'model\.encoder': keep_s is for padding=recall"):
        starting_point(brought(path, tmp_path, "adapt={padding: keep, keep_s: 1}"))
    config = brought(path, tmp_path, "adapt.padding=mask")
    save_model_folder(tmp_path, longer)
    assert not starting_point(config).config.model.encoder.changed("keep_s")


def test_decode_options_of_the_initial_model_are_kept_unless_given(path: Path, tmp_path: Path) -> None:
    config = brought(path, tmp_path, "decode.beam_size=2")
    own = load_model_folder(tmp_path)
    guarded = DecodeConfig(guards=GuardConfig(enabled=True), cut_s=2.0)
    save_model_folder(tmp_path, own._replace(config=own.config.model_copy(update={"decode": guarded})))
    decode = starting_point(config).config.decode
    assert decode == guarded.model_copy(update={"beam_size": 2})
    decode = starting_point(
        experiment(
            path.with_name("brought.yaml"),
            f"init={tmp_path}",
            "loss.ctc_weight=0.3",
            "data.max_duration_s=5",
            "decode.guards.wider_beam=1",
        )
    ).config.decode
    assert decode.guards == guarded.guards.model_copy(update={"wider_beam": 1})


def test_initial_model_trains_with_its_dropout(path: Path, tmp_path: Path) -> None:
    config = brought(path, tmp_path)
    task = SpeechTask(starting_point(config), config)
    assert task.model.encoder.dropout.training
    assert task.model.encoder.dropout.p > 0


def test_adapt_without_init_is_an_error(path: Path) -> None:
    with pytest.raises(ConfigError, match="adapt is for the model that init brings"):
        experiment(path, "adapt.keep_s=1")


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_given_share_of_utterances_is_trained_without_padding_silence(path: Path, tmp_path: Path, share: float) -> None:
    config = brought(path, tmp_path, f"augment={{unpadded: {share}}}", "loss.label_smoothing=0")
    parts = starting_point(config)
    data = speech_data(config, parts)
    masked = brought(path, tmp_path, "augment={}", "adapt.padding=mask")
    task, masking = SpeechTask(parts, config).eval(), SpeechTask(starting_point(masked), masked).eval()
    batch = data.dev_batch(list(data.train_cuts)[:4])
    without, whole = (each.criteria(each.dev_pass(batch)) for each in (masking, task))
    unpadded = 0
    for task.batches_seen in range(20):
        for name, value_B in task.losses(batch).items():
            is_without = torch.isclose(value_B, without[name], atol=1e-4, rtol=0)
            assert (is_without != torch.isclose(value_B, whole[name], atol=1e-4, rtol=0)).all()
            unpadded += int(is_without.sum()) if name == "ce" else 0
    assert abs(unpadded / 80 - share) < (0.2 if share == 0.4 else 1e-9)


def test_only_weight_matrices_decay(path: Path) -> None:
    config = experiment(path, "model.encoder.position=transformer_xl")
    model = untrained(config).model
    names = {weight: name for name, weight in model.named_parameters()}
    slow, fast = PartRates(model, {}).groups(1.0, 0.1)
    assert (slow["weight_decay"], fast["weight_decay"]) == (0.1, 0.0)
    of_decay, of_none = ({names[w] for w in cast(list[torch.nn.Parameter], g["params"])} for g in (slow, fast))
    assert {"encoder.layers.0.attention.qkv.weight", "decoder.embedding.weight"} <= of_decay
    assert {f"encoder.layers.0.attention.form.{name}" for name in ("content_H1K", "position_H1K")} <= of_none
    assert {"encoder.layers.0.attention.qkv.bias", "encoder.norm.weight"} <= of_none

"""Pictures of training methods: schedules, decoder input, losses, augmentation.

Shapes: B clips, L tokens, T frames, V vocabulary, H heads.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from torch import Tensor

from asr import losses
from asr.checkpoint import ModelFolder
from asr.config import AugmentConfig, OptimizerConfig, PlateauConfig, ScheduledSamplingConfig
from asr.data.augment import NoiseMixer, Variation, derived_random
from asr.data.batch import Batch
from asr.features import SpecAugment
from asr.model.attention import explicit
from asr.training.criteria.base import MASKS, Pass, teacher_forcing
from asr.training.criteria.errors import Errors
from asr.training.criteria.feed import ScheduledSampling
from asr.training.criteria.minimum_error import Policy
from asr.training.schedule import build_schedule
from docs.pictures.material import CLIP, Material, draw_features, frame_s, heard
from docs.pictures.style import BLUE, GREY, ORANGE, RED, SHARES, figure, letters, shown

STEPS = 15_000
MASKED = AugmentConfig(time_masks=2, freq_masks=2, freq_mask_bins=15)


def schedules() -> Figure:
    """Draw the learning rate over the steps of a run, for each schedule."""
    picture, axes = figure("Learning rate: lr 1.5e-3, warmup_steps 1000, max_steps 15,000", 3.0)
    dev_wer = {5_000: 60.0, 10_000: 50.0}  # at other validations there is no new best
    for name in ("constant", "cosine", "inverse_sqrt", "plateau"):
        plateau = PlateauConfig(patience=2, factor=0.5)
        config = OptimizerConfig(lr=1.5e-3, warmup_steps=1000, schedule=name, plateau=plateau)
        schedule, rates = build_schedule(config, STEPS), list[float]()
        for step in range(STEPS):
            rates.append(config.lr * schedule(step) * 1e3)
            if (step + 1) % 1000 == 0:
                schedule.validated(0.0, dev_wer.get(step + 1, 70.0))
        axes[0, 0].plot(rates, label=name)
    axes[0, 0].plot(list(dev_wer), [0.04] * len(dev_wer), "^", color=GREY, label="a new best WER (plateau)")
    axes[0, 0].set(xlabel="optimiser step", ylabel="learning rate / 0.001", ylim=(0, 1.6))
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return picture


def scheduled_sampling() -> Figure:
    """Draw the share of the decoder's input that is its own prediction, over the steps."""
    picture, axes = figure("Scheduled sampling: share 0.3, steps 1000", 2.8)
    steps = range(0, 12_001, 50)
    for schedule in ("constant", "linear", "exponential", "inverse_sigmoid"):
        config = ScheduledSamplingConfig(share=0.3, schedule=schedule, steps=1000)
        feed = ScheduledSampling(config, torch.tensor([0]), teacher_forcing)
        axes[0, 0].plot(steps, [feed.share(step) for step in steps], label=schedule)
    axes[0, 0].set(xlabel="optimiser step", ylabel="share of predictions", ylim=(0, 0.32))
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return picture


# ---- guided attention -----------------------------------------------------------------------------------------------


def guided_attention(material: Material) -> Figure:
    """Draw the penalty, and the cross-attention of models trained without and with it."""
    title = "Cross-attention, mean over heads of the last layer, and what it pays"
    picture, axes = figure(title, 4.4, 1, 3, sharey=True)
    for axis, row, title in (
        (axes[0, 1], "base", "trained without"),
        (axes[0, 2], "guided", "trained with weight 1"),
    ):
        parts = material.model(row)
        batch = material.batch(parts, CLIP)
        attention_LT, frames = _cross_attention(parts, batch), frame_s(parts)
        L, T = attention_LT.shape
        extent = (0, T * frames, L - 0.5, -0.5)
        image = axis.imshow(attention_LT, cmap=SHARES, aspect="auto", extent=extent, vmin=0, vmax=0.3)
        axis.set(title=title, xlabel="seconds")
    penalty = axes[0, 0].imshow(penalties(L, T), cmap="Oranges", aspect="auto", extent=extent, vmin=0, vmax=1)
    axes[0, 0].set(title="penalty, width 0.2", xlabel="seconds", ylabel="token that is to be said")
    letters(axes[0, 0], [*parts.tokenizer.pieces(batch.text_BL[0, :-1].tolist()), "end"])
    bar: dict[str, Any] = {"orientation": "horizontal", "aspect": 15}
    picture.colorbar(penalty, ax=axes[0, 0], label="penalty", **bar)
    picture.colorbar(image, ax=axes[0, 1:], label="attention weight", extend="max", shrink=0.5, **bar)
    return picture


def penalties(L: int, T: int) -> Tensor:
    """Return the penalty for attention of token l to frame t, (L, T), from the loss for each such pair alone."""
    one_XLT = torch.eye(L * T).view(L * T, 1, L, T)
    paid_X = losses.guided_attention(one_XLT, torch.full((L * T,), L), torch.full((L * T,), T))
    return (paid_X * L).view(L, T)


@torch.no_grad()
def _cross_attention(parts: ModelFolder, batch: Batch) -> Tensor:
    _, memory = heard(parts, batch)
    _, attentions = parts.model.decoder(batch.inputs_BL, memory, explicit)
    attention_LT: Tensor = attentions[-1][0].mean(0)
    return attention_LT


# ---- augmentation ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def augmentation(material: Material) -> Figure:
    """Draw the features of a clip as it is, slower, with music and masked."""
    parts = material.model("base")
    cuts, rate_hz = material.cuts(CLIP), parts.model.front_end.sample_rate_hz
    slow = Variation(AugmentConfig(speeds=(0.9,)), 0).passing(cuts, 0)
    plain, slower = (material.collated(parts, list(some)) for some in (cuts, slow))
    with TemporaryDirectory() as folder:
        time_N1 = np.arange(10 * rate_hz)[:, None] / rate_hz
        chord_N = np.sin(2 * np.pi * time_N1 * np.outer((262, 330, 392), (1, 2, 4)).ravel()).mean(1)
        soundfile.write(Path(folder) / "chord.wav", chord_N, rate_hz)
        config = AugmentConfig(noise=Path(folder), noise_probability=1.0, noise_snr_db=(5.0, 5.0))
        noisy_N, _ = NoiseMixer(config, rate_hz, 0)(plain.audio_BN[0], CLIP, 0)
    features, _ = heard(parts, plain)
    masked = SpecAugment(MASKED)(features, [derived_random(0, MASKS, CLIP)])
    picture, axes = figure("A clip as it is and as it may be trained on", 3.4, 2, 2, sharex=True, sharey=True)
    for axis, title, x in (
        (axes[0, 0], "as it is", features),
        (axes[0, 1], "speeds: [0.9]", heard(parts, slower)[0]),
        (axes[1, 0], "noise_snr_db: [5, 5], a chord", heard(parts, replace(plain, audio_BN=noisy_N[None]))[0]),
        (axes[1, 1], "time_masks: 2, freq_masks: 2, freq_mask_bins: 15", masked),
    ):
        draw_features(axis, x, parts, features if x is masked else None)
        axis.set_title(title)
    for axis in axes[1]:
        axis.set(xlabel="seconds", xlim=(0, slower.audio_len_B[0] / rate_hz))
    return picture


# ---- two views ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def consistency(material: Material) -> Figure:
    """Draw two SpecAugment views of a clip, the CTC posteriors of each, and their divergence."""
    parts = material.model("base")
    assert parts.model.ctc is not None
    batch = material.batch(parts, CLIP)
    features, _ = heard(parts, batch)
    views = [SpecAugment(MASKED)(features, [derived_random(0, purpose, CLIP)]) for purpose in (MASKS, f"{MASKS} again")]
    ratios = [2, 2, 1.6, 1.2]
    picture, axes = figure("CR-CTC: a clip behind two draws of SpecAugment", 5.4, 4, sharex=True, height_ratios=ratios)
    said = []
    for view, axis, name, colour in zip(views, axes[:2, 0], ("first", "second"), (BLUE, ORANGE), strict=True):
        draw_features(axis, view, parts, features)
        axis.set_ylabel(f"{name} view\nmel bin")
        said.append(parts.model.ctc(parts.model.encoder(view)))
        time_T = (np.arange(said[-1].shape[1]) + 0.5) * frame_s(parts)
        said_T = 1 - said[-1][0, :, parts.tokenizer.blank_id].exp()
        axes[2, 0].plot(time_T, said_T, color=colour, label=f"{name} view", linewidth=1.3)
    a_T1V, b_T1V = (x_1TV[0, :, None] for x_1TV in said)  # each frame as its own clip, for a divergence per frame
    one_T = torch.ones(len(time_T), dtype=torch.long)
    apart_T = (losses.divergence(a_T1V, b_T1V, one_T) + losses.divergence(b_T1V, a_T1V, one_T)) / 2
    axes[2, 0].set(ylabel="P(not blank)", ylim=(0, 1.05))
    axes[2, 0].legend(loc="lower center", ncols=2)
    axes[3, 0].fill_between(time_T, apart_T, color=RED, alpha=0.6, linewidth=0)
    axes[3, 0].set(xlabel="seconds", ylabel="divergence\n/ nats", ylim=(0, None))
    return picture


@torch.no_grad()
def r_drop(material: Material) -> Figure:
    """What the decoder says of a clip in two passes with different dropout, and how far these differ, by token."""
    parts = material.model("inverse-sqrt")
    batch = material.batch(parts, CLIP)
    parts.model.train()
    torch.manual_seed(0)
    begin, target_L = batch.prefix_length - 1, batch.targets_BL[0, batch.prefix_length - 1 :]
    said = []
    for _ in range(2):
        logits_1LV, _ = parts.model.decoder(batch.inputs_BL, heard(parts, batch)[1])
        said.append(logits_1LV[0, begin:].float().log_softmax(-1))
    a_L1V, b_L1V = (x_LV[:, None] for x_LV in said)  # every token as a text of its own
    one_L, at_L = torch.ones(len(target_L), dtype=torch.long), np.arange(len(target_L))
    apart_L = (losses.divergence(a_L1V, b_L1V, one_L) + losses.divergence(b_L1V, a_L1V, one_L)) / 2
    picture, axes = figure("R-Drop: two passes with different dropout", 3.8, 2, sharex=True, height_ratios=[1.6, 1])
    for x_LV, shift, name, colour in zip(said, (-0.2, 0.2), ("first", "second"), (BLUE, ORANGE), strict=True):
        prob_L = x_LV.gather(1, target_L[:, None])[:, 0].exp()
        axes[0, 0].bar(at_L + shift, prob_L, 0.4, color=colour, label=f"{name} pass")
    axes[0, 0].set(ylabel="P(token)", ylim=(0, 1.05))
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes[1, 0].bar(at_L, apart_L, 0.6, color=RED, alpha=0.6)
    axes[1, 0].set(xlabel="token that comes next", ylabel="divergence\n/ nats")
    pieces = [*parts.tokenizer.pieces(target_L[:-1].tolist()), "end"]
    axes[1, 0].set_xticks(at_L, [shown(piece) for piece in pieces], fontsize=8)
    return picture


# ---- errors ---------------------------------------------------------------------------------------------------------


def minimum_error(material: Material) -> Figure:
    """How both criteria on errors move the log-probabilities of the texts that they find for a clip."""
    parts = material.model("inverse-sqrt")
    batch = material.batch(parts, CLIP)
    policy, errors = Policy(parts.tokenizer, parts.config.model.decoder.max_length), Errors("wer", "none")
    run = Pass(parts.model, batch, heard(parts, batch)[0], step=0)
    with torch.no_grad():
        best, drawn, greedy = policy.best(run, 6), policy.samples(run, 6), policy.best(run, 1)
    texts, counted = [], []
    for found in (best, drawn, greedy):
        texts.append([parts.tokenizer.decode(list(h.tokens)).strip() for h in found[0]])
        counted.append(torch.tensor([errors(batch.texts[0], None, texts[-1])]))
    log_probs = [policy.log_probs(run, found).detach().requires_grad_() for found in (best, drawn)]
    losses.expected_errors(log_probs[0], counted[0]).sum().backward()
    losses.policy_gradient(log_probs[1], counted[1], counted[2][:, 0]).sum().backward()
    picture, axes = figure(f"What training on word errors does to the texts of a clip (said: {batch.texts[0]})", 4.6, 2)
    expected = float((log_probs[0].detach().softmax(1) * counted[0]).sum())
    titles = (
        f"n_best: the 6 best of a beam, {expected:.1f} errors expected",
        f"self_critical: 6 samples; the greedy text has {counted[2][0, 0]:.0f} errors",
    )
    for axis, title, names, count_1N, log_prob_1N in zip(axes[:, 0], titles, texts, counted, log_probs, strict=False):
        assert log_prob_1N.grad is not None
        push_N = -log_prob_1N.grad[0]
        axis.barh(range(len(names)), push_N, color=[BLUE if push > 0 else ORANGE for push in push_N.tolist()])
        labels = [f"{name} ({count:.0f} errors)" for name, count in zip(names, count_1N[0].tolist(), strict=True)]
        axis.set_yticks(range(len(names)), labels, fontsize=8)
        axis.invert_yaxis()
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set_title(title, loc="left")
        axis.set(ylabel="text", xlabel="push on log p (left: less probable, right: more)")
    return picture


PLAIN = {"schedules": schedules, "scheduled-sampling": scheduled_sampling}
OF_SPEECH = {
    "augmentation": augmentation,
    "guided-attention": guided_attention,
    "consistency": consistency,
    "r-drop": r_drop,
    "minimum-error": minimum_error,
}

"""Plots that show whether a model learns: features with cross-attention, and learning curves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from matplotlib.figure import Figure

from asr.data.batch import Batch
from asr.data.module import data_given_to
from asr.model.attention import explicit
from asr.pictures import draw_features, save
from asr.training.logs import read_metrics
from asr.training.task import SpeechTask

_LONGEST_STEM = 200  # bytes, of the 255 that file systems allow


class PlotAttention(L.Callback):
    """Draw the features and the cross-attention of the same few dev utterances at each validation."""

    def __init__(self, folder: Path, utterances: int) -> None:
        self.folder, self.utterances = folder, utterances

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SpeechTask)
        data = data_given_to(trainer)
        if not trainer.is_global_zero:
            return
        cuts = sorted(data.dev_cuts, key=lambda cut: (abs(cut.duration - 3.0), cut.id))[: self.utterances]
        for cut in cuts:
            batch = data.dev_batch([cut])
            path = self.folder / f"{_stem(cut.id)}-step-{trainer.global_step:07d}.png"
            draw_attention(path, pl_module, batch, f"{cut.id} after {trainer.global_step} steps")


def _stem(id: str) -> str:
    """Turn an id into part of a file name; if it has to be changed or shortened, a hash keeps it unique."""
    name = re.sub(r"[^\w.-]", "-", id).encode()[:_LONGEST_STEM].decode(errors="ignore")
    return name if name == id else f"{name}-{hashlib.sha256(id.encode()).hexdigest()[:8]}"


@torch.inference_mode()
def draw_attention(path: Path, task: SpeechTask, batch: Batch, title: str) -> None:
    """Draw one utterance: its features, and below them the cross-attention of each layer, averaged over heads."""
    batch = batch.to(task.device)
    features = task.model.front_end(batch.audio_BN, batch.audio_len_B)
    memory = task.model.encoder(features)
    _, attentions = task.model.decoder(batch.inputs_BL, memory, explicit)
    frames, speech = int(memory.len_B[0]), int(features.speech_len_B[0])
    tokens = batch.targets_BL[0].tolist()
    labels = ["<end>" if t == task.tokenizer.eos_id else task.tokenizer.decode([t]) for t in tokens]
    seconds = speech * task.model.front_end.hop_s
    maps = [a[0].mean(0)[:, :frames].float().cpu() for a in attentions]
    figure = draw_features(features.x_BTF[0, :speech].float().cpu(), seconds, title, maps, labels)
    save(figure, path)


def draw_perplexity(points: Sequence[Sequence[float]], path: Path) -> None:
    """Draw the perplexities of a language model from points (step, train, dev), one for each validation."""
    steps, train, dev = zip(*points, strict=True)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(steps, train, marker=".", label="train, mean since the validation before")
    axis.plot(steps, dev, marker=".", label="dev")
    axis.set(xlabel="optimiser steps", ylabel="perplexity of a token", yscale="log")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def draw_learning_curves(logs: Path, path: Path) -> None:
    """Draw loss, dev scores with their 95 % intervals, gradient norm and learning rate over the steps of a run."""
    rows = read_metrics(logs)
    rates, scores = ["dev_wer", "dev_cer"], ["dev_bleu", "dev_chrf"]
    translates = any(row.get(name) for row in rows for name in scores)
    panels: list[tuple[str, list[str]]] = [
        ("loss", ["loss", *sorted({name for row in rows for name in row if name.startswith("loss_")}), "dev_loss"]),
        ("error rate / %" if not translates else "dev score", [*rates, *scores]),
        ("gradient norm", ["grad_norm"]),
        ("learning rate", sorted({name for row in rows for name in row if re.fullmatch(r"lr-\w+(/pg1)?", name)})),
    ]
    figure = Figure(figsize=(10, 7), layout="constrained")
    for axis, (label, names) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for name in names:
            points = [(int(r["step"]), float(r[name])) for r in rows if r.get(name)]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    label=name.partition("-")[0],
                    marker="." if len(points) < 50 else "",
                )
            ends = [
                (int(r["step"]), float(r[f"{name}_low"]), float(r[f"{name}_high"]))
                for r in rows
                if r.get(f"{name}_low")
            ]
            if ends:
                axis.fill_between(*zip(*ends, strict=True), alpha=0.2)
        axis.set(xlabel="optimiser steps", ylabel=label)
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend()
    save(figure, path)

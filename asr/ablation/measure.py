"""What is measured of a trained model: rates, the losses of dev, the speed of decoding, how straight attention goes.

This runs in a process of its own, `python -m asr.ablation TASK.json`, whose threads are counted and whose memory goes
with it.

Shapes: B batch, H heads of all layers, L tokens, T encoder frames.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asr import losses
from asr.ablation.results import Errors, Split
from asr.checkpoint import load_model_folder
from asr.config import Config, ExperimentConfig, read_config, set_key
from asr.config.base import Location
from asr.data.batch import Batch
from asr.errors import DataError, printable
from asr.evaluate import Evaluation, evaluate
from asr.files import Place, write_atomically
from asr.model.attention import explicit
from asr.recognizer import Recognizer
from asr.recognizer.searchers import options_with
from asr.training.finish import average
from asr.training.start import data_of
from asr.training.task import SpeechTask

FOUND = "measured.json"


class Measuring(Config):
    """A task: the run that made the model, how it is to decode, test, and where what was heard is kept.

    decode: what changes in the model's own way of decoding, by dotted key.
    """

    run: Path
    average: bool
    decode: dict[str, Any]
    test: Location | None
    out: Path


class Diagonality(NamedTuple):
    """How much of cross-attention lies along the diagonal: the mean over all heads, and the head with the most."""

    mean: float
    best_head: float


def measure(task: Measuring) -> None:
    """Measure, and write measured.json into the task's folder; the texts go to its folders dev and test."""
    torch.set_num_threads(1)
    experiment = read_config(ExperimentConfig, task.run / "experiment.yaml")
    folder = average(task.run, task.out / "model")[0] if task.average else task.run / "model"
    recognizer = _recognizer(folder, task.decode)
    began_s = time.process_time()  # what else the machine does makes no difference to it
    dev = _decode(recognizer, experiment, experiment.data.dev, task.out / "dev")
    factor = (time.process_time() - began_s) / dev.audio_s
    found: dict[str, Any] = {"dev": _split(dev), "real_time_factor": round(factor, 5)}
    if task.test is not None:
        found["test"] = _split(_decode(recognizer, experiment, task.test, task.out / "test"))
    found |= _of_teacher_forcing(experiment, folder)
    if not task.average:
        run = json.loads((task.run / "run.json").read_text(encoding="utf-8"))
        found["best_step"] = int(next(iter(run["best_states"])))  # the best of them stands first
    with write_atomically(task.out / FOUND) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")


def _recognizer(folder: Path, changes: dict[str, Any]) -> Recognizer:
    """A model at work, with changes to its own way of decoding."""
    parts = load_model_folder(folder)
    given: dict[str, Any] = {}
    for key, value in changes.items():
        set_key(given, key, value, key)
    return Recognizer(parts, options_with(parts.config.decode, given, "decode"))


def _decode(recognizer: Recognizer, experiment: ExperimentConfig, manifest: Place, out: Path) -> Evaluation:
    (language,) = experiment.data.languages or (None,)
    found = evaluate(recognizer, manifest, out, normalizer=experiment.scored_with, language=language)
    if found.failed:  # recipes are compared on the same utterances
        raise DataError(f"{manifest}: cut {printable(found.failed[0].id)}: {found.failed[0].reason}")
    return found


def _split(found: Evaluation) -> dict[str, Any]:
    blocks = {name: found.report.drawn(name)[0].T.tolist() for name in ("wer", "cer")}
    errors = {name: Errors(errors=errors, reference=said) for name, (errors, said) in blocks.items()}
    return Split(**errors).model_dump(mode="json")


@torch.inference_mode()
def _of_teacher_forcing(experiment: ExperimentConfig, folder: Path) -> dict[str, Any]:
    """What the model makes of dev's texts when it is fed them."""
    parts = load_model_folder(folder)
    task = SpeechTask(parts, experiment).eval()
    data = data_of(experiment, parts)
    sums: defaultdict[str, float] = defaultdict(float)
    straight: list[Tensor] = []
    tokens: list[Tensor] = []
    for batch in data.val_dataloader():
        for name, value_B in task.losses(batch, training=False).items():
            sums[name] += float(value_B.sum())
        sums["characters"] += sum(map(len, batch.texts))
        attentions, frames_B = cross_attention(task, batch)
        if attentions:
            straight.append(diagonality(torch.cat(attentions, dim=1), batch.target_len_B, frames_B))
            tokens.append(batch.target_len_B)
    found: dict[str, Any] = {"parameters": parts.model.parameters_count}
    found["dev_losses"] = {n: round(sums[n] / sums["characters"], 5) for n in ("ce", "ctc") if n in sums}
    if straight:
        of_all = _weighed(torch.cat(straight, dim=1), torch.cat(tokens))
        found |= {"diagonality": round(of_all.mean, 4), "best_head_diagonality": round(of_all.best_head, 4)}
    return found


def cross_attention(task: SpeechTask, batch: Batch) -> tuple[list[Tensor], Tensor]:
    """The attention (B, H, L, T) of each decoder layer to the encoder, the texts being given; T of each utterance.

    No layers where the model has no attention decoder.
    """
    memory = task.model.encode(batch.audio_BN, batch.audio_len_B)
    if not task.attends:
        return [], memory.len_B
    _, attentions = task.model.decoder(batch.inputs_BL, memory, explicit, batch.target_len_B)
    return attentions, memory.len_B


def diagonality(attention_BHLT: Tensor, len_B: Tensor, frames_B: Tensor) -> Tensor:
    """One less the penalty of Tachibana et al. 2017 with g = 0.2, of each head and utterance, (H, B).

    Each frame's attention counts exp(-(l / L - t / T)^2 / (2 g^2)): 1 on the diagonal.  Attention that is spread
    evenly has 0.42; speech has pauses and no even pace, so that a perfect one stays below 1.
    """
    heads = attention_BHLT.split(1, dim=1)
    return torch.stack([1 - losses.guided_attention(head_B1LT, len_B, frames_B) for head_B1LT in heads])


def _weighed(straight_HB: Tensor, tokens_B: Tensor) -> Diagonality:
    """The mean over tokens of each head."""
    of_head_H = (straight_HB * tokens_B).sum(1) / tokens_B.sum()
    return Diagonality(float(of_head_H.mean()), float(of_head_H.max()))

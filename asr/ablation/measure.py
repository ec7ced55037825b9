"""Measurements of a trained model: error rates, dev losses, decoding speed, diagonality of cross-attention.

They run in a separate process, `python -m asr.ablation TASK.json`, which has one thread and returns its memory when it
ends.

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
    """A task: which model to measure, and how.

    run: folder of the run that trained the model.  average: whether to measure the average of its best states.  decode:
    changes to the model's own decoding options, by dotted key.  test: a manifest to decode besides dev.  out: folder
    for the results.
    """

    run: Path
    average: bool
    decode: dict[str, Any]
    test: Location | None
    out: Path


class Diagonality(NamedTuple):
    """How much cross-attention lies along the diagonal: the mean over all heads, and the value of the best head."""

    mean: float
    best_head: float


def measure(task: Measuring) -> None:
    """Measure a model; write measured.json into the task's folder and the texts into its subfolders dev and test."""
    torch.set_num_threads(1)
    experiment = read_config(ExperimentConfig, task.run / "experiment.yaml")
    folder = average(task.run, task.out / "model")[0] if task.average else task.run / "model"
    recognizer = _recognizer(folder, task.decode)
    began_s = time.process_time()  # CPU time, which other load on the machine does not change
    dev = _decode(recognizer, experiment, experiment.data.dev, task.out / "dev")
    factor = (time.process_time() - began_s) / dev.audio_s
    found: dict[str, Any] = {"dev": _split(dev), "real_time_factor": round(factor, 5)}
    if task.test is not None:
        found["test"] = _split(_decode(recognizer, experiment, task.test, task.out / "test"))
    found |= _of_teacher_forcing(experiment, folder)
    if not task.average:
        run = json.loads((task.run / "run.json").read_text(encoding="utf-8"))
        found["best_step"] = int(next(iter(run["best_states"])))  # the best comes first
    with write_atomically(task.out / FOUND) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")


def _recognizer(folder: Path, changes: dict[str, Any]) -> Recognizer:
    """Return a recogniser with changes to the model's own decoding options."""
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
    """Return the losses and the diagonality on dev when the decoder is fed the reference texts."""
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
    """Return each decoder layer's cross-attention (B, H, L, T), given the texts, and the frames (B,) of each utterance.

    There are no layers if the model has no attention decoder.
    """
    memory = task.model.encode(batch.audio_BN, batch.audio_len_B)
    if not task.attends:
        return [], memory.len_B
    _, attentions = task.model.decoder(batch.inputs_BL, memory, explicit, batch.target_len_B)
    return attentions, memory.len_B


def diagonality(attention_BHLT: Tensor, len_B: Tensor, frames_B: Tensor) -> Tensor:
    """Return 1 minus the penalty of Tachibana et al. 2017 with g = 0.2 for each head and utterance: (H, B).

    Attention to a frame is weighted by exp(-(l / L - t / T)^2 / (2 g^2)), which is 1 on the diagonal.  Uniform
    attention has 0.42; speech has pauses and an uneven pace, so even a perfect alignment stays below 1.
    """
    heads = attention_BHLT.split(1, dim=1)
    return torch.stack([1 - losses.guided_attention(head_B1LT, len_B, frames_B) for head_B1LT in heads])


def _weighed(straight_HB: Tensor, tokens_B: Tensor) -> Diagonality:
    """Average each head over utterances, weighted by their tokens."""
    of_head_H = (straight_HB * tokens_B).sum(1) / tokens_B.sum()
    return Diagonality(float(of_head_H.mean()), float(of_head_H.max()))

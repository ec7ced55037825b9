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
from typing import Any

import torch
from torch import Tensor

from asr import losses
from asr.ablation.results import Errors, Split
from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import Config, ExperimentConfig, read_config, set_key
from asr.config.base import Location
from asr.errors import DataError, printable
from asr.evaluate import Evaluation, evaluate
from asr.files import Place, write_whole
from asr.model.decoder import Decoder
from asr.recognizer import Recognizer
from asr.recognizer.searchers import options_with
from asr.training.averaging import average
from asr.training.criteria import Pass, build_criteria
from asr.training.start import data_of

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


def measure(task: Measuring) -> None:
    """Measure a model; write measured.json into the task's folder and the texts into its subfolders dev and test."""
    torch.set_num_threads(1)
    experiment = read_config(ExperimentConfig, task.run / "experiment.yaml")
    folder = average(task.run, task.out / "model")[0] if task.average else task.run / "model"
    parts = load_model_folder(folder)
    recognizer = _recognizer(parts, task.decode)
    began_s = time.process_time()  # CPU time, which other load changes less than wall time
    dev = _decode(recognizer, experiment, experiment.data.dev, task.out / "dev")
    factor = (time.process_time() - began_s) / dev.audio_s
    found: dict[str, Any] = {"dev": _split(dev), "real_time_factor": round(factor, 5)}
    if task.test is not None:
        found["test"] = _split(_decode(recognizer, experiment, task.test, task.out / "test"))
    found |= teacher_forcing(experiment, parts)
    if not task.average:
        run = json.loads((task.run / "run.json").read_text(encoding="utf-8"))
        found["best_step"] = int(next(iter(run["best_states"])))  # the best comes first
    write_whole(task.out / FOUND, json.dumps(found))


def _recognizer(parts: ModelFolder, changes: dict[str, Any]) -> Recognizer:
    """Return a recogniser with changes to the model's own decoding options."""
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
def teacher_forcing(experiment: ExperimentConfig, parts: ModelFolder) -> dict[str, Any]:
    """Return the losses and the diagonality on dev when the decoder is fed the reference texts."""
    model, criteria = parts.model, build_criteria(experiment, parts)
    sums: defaultdict[str, float] = defaultdict(float)
    straight: list[Tensor] = []
    tokens: list[Tensor] = []
    for batch in data_of(experiment, parts).val_dataloader():
        features = model.front_end(batch.audio_BN, batch.audio_len_B)
        run = Pass(model, batch, features, attention=True, training=False)
        for name, value_B in criteria(run).items():
            sums[name] += float(value_B.sum())
        sums["characters"] += sum(map(len, batch.texts))
        if isinstance(model.decoder, Decoder):
            attention_BHLT = torch.cat(run.text_attentions, dim=1)
            straight.append(diagonality(attention_BHLT, run.text_rows_B, run.memory.len_B))
            tokens.append(run.text_rows_B)
    found: dict[str, Any] = {"parameters": model.parameters_count}
    found["dev_losses"] = {n: round(sums[n] / sums["characters"], 5) for n in ("ce", "ctc") if n in sums}
    if straight:
        straight_HB, tokens_B = torch.cat(straight, dim=1), torch.cat(tokens)
        of_head_H = (straight_HB * tokens_B).sum(1) / tokens_B.sum()
        found["diagonality"] = round(float(of_head_H.mean()), 4)
        found["best_head_diagonality"] = round(float(of_head_H.max()), 4)
    return found


def diagonality(attention_BHLT: Tensor, len_B: Tensor, frames_B: Tensor) -> Tensor:
    """Return 1 minus the penalty of Tachibana et al. 2017 with g = 0.2 for each head and utterance: (H, B).

    Attention to a frame is weighted by exp(-(l / L - t / T)^2 / (2 g^2)), which is 1 on the diagonal.  Uniform
    attention has 0.42; speech has pauses and an uneven pace, so even a perfect alignment stays below 1.
    """
    heads = attention_BHLT.split(1, dim=1)
    return torch.stack([1 - losses.guided_attention(head_B1LT, len_B, frames_B) for head_B1LT in heads])

"""Compare fine-tuning of Whisper with the transformers library on equal weights, batches, steps and learning rates.

Run `python benchmarks/finetune.py conf/prompts/finetune-tiny-en.yaml --test data/prompts-en/cuts_test.jsonl.gz`.  Each
training has its own process, and the engines take turns, because machines are noisy: compare ratios.  The transformers
training is the usual loop: WhisperFeatureExtractor, which pads to 30 s, WhisperForConditionalGeneration and AdamW.  All
models are decoded with our recogniser, greedily and without guards, so that only the training differs.
"""

from __future__ import annotations

import math
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, NamedTuple
from unittest.mock import patch

import torch
import typer
from rich.console import Console
from rich.table import Table

from asr.checkpoint import load_model_folder
from asr.config import DecodeConfig, ExperimentConfig, Padding, read_config
from asr.data.batch import Batch
from asr.data.cuts import load_audio, read_cuts, text_of
from asr.errors import AsrError
from asr.machine import cores
from asr.pretrained import find_model, import_model, with_padding
from asr.recognizer import Recognizer
from asr.training.run import train
from asr.training.schedule import build_schedule
from asr.training.start import data_of, starting_point, total_steps
from asr.training.task import SpeechTask
from benchmarks.conversion import as_theirs, save
from benchmarks.script import known_engines, new_table, run_script
from benchmarks.speech import english_wer, sources, texts_of
from benchmarks.worker import Worker

ENGINES = ("ours", "transformers-fp32", "transformers-bf16")
PADDING: dict[str, Padding] = {"full": "keep", "remembered": "recall", "none": "mask"}


class Clock(NamedTuple):
    """Wall time, and processor time of all threads, in seconds; a busy machine affects the latter less."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Clock:
        return cls(time.perf_counter(), time.process_time())

    def since(self, before: Clock, steps: int = 1) -> Clock:
        """Return the mean time per step."""
        return Clock((self.wall_s - before.wall_s) / steps, (self.cpu_s - before.cpu_s) / steps)


class Trained(NamedTuple):
    """A model folder, the time of its whole training (with loading and scoring on dev), and the start of each step."""

    folder: Path
    whole: Clock
    starts: list[Clock]

    @property
    def step(self) -> Clock:
        """The mean time of all steps but the last, after which our training validates."""
        return self.starts[-1].since(self.starts[0], len(self.starts) - 1)


def main(
    config: Annotated[Path, typer.Argument(help="Experiment that starts from a Whisper model.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides of its keys, KEY=VALUE.")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="Manifests to score on; without, only time.")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0,1,2",
    engines: Annotated[
        str, typer.Option(help=f"Comma-separated, from: {', '.join(ENGINES)}.")
    ] = "ours,transformers-bf16",
    threads: Annotated[int, typer.Option(min=1)] = cores(),
    out: Annotated[Path | None, typer.Option(help="Folder to keep the models in.")] = None,
) -> None:
    """Train with each engine and seed in turn, then score every model.

    Example: `python benchmarks/finetune.py conf/prompts/finetune-tiny-en.yaml trainer.max_steps=4 --seeds 0`
    """
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore")
    chosen = known_engines(engines.split(","), ENGINES)
    console, jobs = Console(width=120), [(engine, int(seed)) for seed in seeds.split(",") for engine in chosen]
    with tempfile.TemporaryDirectory() as temporary:
        folder, found = out or Path(temporary), {}
        for engine, seed in jobs:
            changes = [*(overrides or []), f"seed={seed}", f"out={folder / engine}-{seed}"]
            experiment = read_config(ExperimentConfig, config, changes)
            if experiment.init is None:
                raise AsrError(f"{config}: it has no init; name the Whisper model to fine-tune there")
            if experiment.trainer.accumulate > 1:
                raise AsrError(f"{config}: trainer.accumulate must be 1 for this comparison")
            initial = experiment.init.from_
            # not a daemon, as training starts processes to load data
            with closing(Worker(engine, _training, engine, experiment, threads, daemon=False)) as worker:
                found[engine, seed] = trained = worker.next()
            console.print(f"{engine}, seed {seed}: {trained.whole.wall_s:.0f} s, {trained.step.wall_s:.2f} s a step")
        console.print(_times(found, threads))
        if test:
            start = find_model(initial)
            console.print(_scores({("before", 0): start} | {job: t.folder for job, t in found.items()}, test))


def _times(found: dict[tuple[str, int], Trained], threads: int) -> Table:
    steps = len(next(iter(found.values())).starts)
    columns = ("", "runs", "seconds", "of processor time", "seconds a step", "of processor time", "ratio")
    table = new_table(f"{steps} steps, {threads} threads, medians", *columns)
    names = list(dict.fromkeys(engine for engine, _ in found))
    runs = {name: [t for (engine, _), t in found.items() if engine == name] for name in names}
    whole = {name: _median([t.whole for t in own]) for name, own in runs.items()}
    step = {name: _median([t.step for t in own]) for name, own in runs.items()}
    theirs = min((s.cpu_s for name, s in step.items() if name != "ours"), default=math.nan)
    for name, own in runs.items():
        seconds = f"{whole[name].wall_s:.0f}", f"{whole[name].cpu_s:.0f}"
        each = f"{step[name].wall_s:.2f}", f"{step[name].cpu_s:.2f}"
        ratio = "" if math.isnan(theirs) else f"{theirs / step[name].cpu_s:.1f}"
        table.add_row(name, str(len(own)), *seconds, *each, ratio)
    table.caption = "ratio: best processor time a step of transformers to this; ours in total includes scoring dev"
    return table


def _median(clocks: list[Clock]) -> Clock:
    return Clock(*(statistics.median(values) for values in zip(*clocks, strict=True)))


# ---- training -------------------------------------------------------------------------------------------------


def _training(engine: str, config: ExperimentConfig, threads: int) -> Iterator[Trained]:
    """Yield what one training took."""
    torch.set_num_threads(threads)
    began = Clock.now()
    folder, starts = _ours(config) if engine == "ours" else _transformers(config, bf16=engine.endswith("bf16"))
    yield Trained(folder, Clock.now().since(began), starts)


def _ours(config: ExperimentConfig) -> tuple[Path, list[Clock]]:
    starts = []
    begin = SpeechTask.on_train_batch_start

    def noted(task: SpeechTask, batch: Batch, batch_idx: int) -> None:
        starts.append(Clock.now())
        begin(task, batch, batch_idx)

    with patch.object(SpeechTask, "on_train_batch_start", noted):
        return train(config, Console(file=sys.stderr)), starts


def _transformers(config: ExperimentConfig, *, bf16: bool) -> tuple[Path, list[Clock]]:
    from transformers import WhisperFeatureExtractor

    parts = starting_point(config)
    data = data_of(config, parts)
    model = as_theirs(parts).train()
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    options, steps = config.optimizer, total_steps(config, data)
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=options.betas, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, build_schedule(options, steps))
    starts = []
    for batch, _ in zip(data.train_dataloader(), range(steps or sys.maxsize), strict=False):
        starts.append(Clock.now())
        audio = [row[:n].numpy() for row, n in zip(batch.audio_BN, batch.audio_len_B.tolist(), strict=True)]
        features = extractor(audio, sampling_rate=data.sample_rate_hz, return_tensors="pt").input_features
        unused_BL = torch.arange(batch.targets_BL.shape[1]) >= batch.target_len_B[:, None]
        labels_BL = batch.targets_BL.masked_fill(unused_BL, -100)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = model(input_features=features, decoder_input_ids=batch.inputs_BL, labels=labels_BL).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    saved, folder = config.out / "saved", config.out / "model"
    save(model, parts, saved)
    shutil.rmtree(folder, ignore_errors=True)  # left by an earlier measurement
    import_model(saved, folder, exact=True)
    return folder, starts


# ---- scores ---------------------------------------------------------------------------------------------------


def _scores(folders: dict[tuple[str, int], Path], manifests: list[Path]) -> Table:
    columns = [(path, padding) for path in manifests for padding in PADDING]
    names = [f"{path.name.partition('.')[0]}, {padding}" for path, padding in columns]
    table = new_table("WER, greedy", "", "seed", *names)
    for (engine, seed), folder in folders.items():
        rates = [f"{_wer(folder, path, padding):.2f}" for path, padding in columns]
        table.add_row(engine, "" if engine == "before" else str(seed), *rates)
    table.caption = "padding to 30 s when decoding: computed in full, remembered, none"
    return table


def _wer(folder: Path, manifest: Path, padding: str) -> float:
    recognizer = Recognizer(with_padding(load_model_folder(folder), PADDING[padding]), DecodeConfig())
    cuts = list(read_cuts(manifest))
    audio = {cut.id: load_audio(cut, recognizer.rate) for cut in cuts}
    texts = texts_of(recognizer.transcribe_sources(sources(audio, recognizer.rate), batch_s=60))
    return english_wer([text_of(cut) for cut in cuts], [texts[cut.id] for cut in cuts])


if __name__ == "__main__":
    run_script(main)

"""The start of a run: an untrained model or the one of `init`, the vocabulary, the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from asr.checkpoint import ModelFolder
from asr.config import ExperimentConfig, ModelFolderConfig
from asr.data.corpus import Note, Streamed, vocabulary_texts
from asr.data.cuts import Dropped, check_audio
from asr.data.module import SpeechData, dropped_summary
from asr.data.tasks import task_of
from asr.errors import ConfigError, DataError
from asr.features import GlobalNormalization
from asr.files import write_whole
from asr.model.build import build_model
from asr.scoring import metrics_of
from asr.tasks import TRANSCRIBE
from asr.tokenizer import CharacterTokenizer, SentencePieceTokenizer, Tokenizer, load_tokenizer
from asr.training.folder import TOKENIZER
from asr.training.initial import adapted, assembled

_QUIET = Console(quiet=True)
_LARGE_GZ_BYTES = 64 << 20  # about 60 bytes a cut, which takes at least 2 kB of memory
_GZ_RATIO = 8
_MEASURED = 5000  # cuts at most: about ten hours


def starting_point(config: ExperimentConfig, console: Console = _QUIET) -> ModelFolder:
    """Return the model that a new run starts from: untrained, or with what `init` names of another."""
    parts = _starting_point(config, console)
    _check_longest(config, parts.config)
    normalization = parts.config.model.encoder.normalization
    if config.trainer.recompute and normalization in ("batch", "power"):
        raise ConfigError(
            f"trainer.recompute would count each batch twice in the norms of normalization={normalization}"
        )
    return parts


def _starting_point(config: ExperimentConfig, console: Console) -> ModelFolder:
    init = config.init
    if init is not None and init.parts is None:
        return adapted(config, init)
    with console.status("making the vocabulary"):
        tokenizer = _tokenizer(config)
    if init is not None:
        return assembled(config, init, tokenizer)
    folder = ModelFolderConfig(
        features=config.features,
        model=config.model,
        tokenizer=config.tokenizer,
        decode=config.decode,
        normalizer=config.normalizer,
    )
    return ModelFolder(folder, build_model(config.features, config.model, tokenizer.vocab_size), tokenizer)


def _check_longest(config: ExperimentConfig, settled: ModelFolderConfig) -> None:
    """Raise ConfigError if training audio may be longer than the model accepts at once."""
    lengths_s = {"data.max_duration_s": config.data.max_duration_s}
    if config.augment.join > 0:
        lengths_s["augment.join_max_s"] = config.augment.join_max_s
    for key, length_s in lengths_s.items():
        if length_s > settled.longest_s:
            encoder = settled.model.encoder
            learned = encoder.position == "learned" and encoder.longest_s == settled.longest_s
            limit = "model.encoder.longest_s, beyond which there are no positions" if learned else "features.window_s"
            raise ConfigError(f"{key}={length_s:g} is longer than the {settled.longest_s:g} s of {limit}")


def _tokenizer(config: ExperimentConfig) -> Tokenizer:
    """Return the vocabulary of a run: trained on its texts at the first start, read from its folder after that."""
    folder = config.out / TOKENIZER
    kind = config.tokenizer.kind
    if kind == "whisper" or kind == "speech2text":
        raise ConfigError(f"tokenizer.kind: {kind} cannot be trained; it comes with init=FOLDER")
    if any(folder.glob("[!.]*")):
        return load_tokenizer(folder, kind)
    # When speech is translated, CTC is trained on what is said.
    hears = config.model.ctc and config.loss.ctc_weight > 0 and TRANSCRIBE not in config.data.tasks
    texts = list(vocabulary_texts(config, spoken=hears))
    languages = config.tokenizer.languages
    tasks = config.data.tasks if config.data.translates else ()
    tokenizer: Tokenizer
    if kind == "character":
        tokenizer = CharacterTokenizer.train(texts, languages, tasks)
    else:
        size = config.tokenizer.vocab_size
        tokenizer = SentencePieceTokenizer.train(texts, languages, tasks, kind=kind, vocab_size=size)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    return tokenizer


def data_of(config: ExperimentConfig, parts: ModelFolder) -> SpeechData:
    """Return the data of a run.

    Raises DataError if train or dev has no usable cut, or dev has none for the measure that chooses the best model.
    """
    front_end, encoder = parts.model.front_end, parts.model.encoder

    @cache
    def shortened(frames: int) -> int:
        return int(encoder.lengths(torch.tensor([max(1, frames)]))[0])

    def encoder_frames(duration_s: float) -> int:
        return shortened(int(duration_s / front_end.hop_s) - front_end.edge)

    needs_frames = parts.model.ctc is not None and config.loss.ctc_weight > 0
    data = SpeechData(
        config,
        parts.tokenizer,
        front_end.sample_rate_hz,
        parts.config.model.decoder.max_length,
        min(parts.config.decode.window_s, parts.config.longest_s),
        encoder_frames if needs_frames else None,
    )
    tasks = dict.fromkeys(map(task_of, data.dev_cuts))
    if config.chosen_by not in {"loss", *(name for task in tasks for name in metrics_of(task))}:
        raise DataError(
            f"{config.data.dev}: its usable cuts are only for {', '.join(tasks)}, which has no score "
            f"{config.chosen_by}: take another data.dev or trainer.choose_by"
        )
    return data


def advise_to_stream(config: ExperimentConfig, console: Console) -> None:
    """Advise data.stream=true before a manifest of a million cuts or more fills the memory."""
    path = config.data.train
    if config.data.streamed or not isinstance(path, Path) or not path.is_file():
        return
    size = path.stat().st_size
    if size > (_LARGE_GZ_BYTES if path.suffix == ".gz" else _GZ_RATIO * _LARGE_GZ_BYTES):
        console.print(
            f"{path}: {size >> 20} MB of cuts are read into memory; data.stream=true reads them as they are needed",
            style="yellow", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def check_files(config: ExperimentConfig, data: SpeechData) -> None:
    """Raise DataError if audio files are missing, now rather than after hours; a stream checks them as they come."""
    if not isinstance(data.corpus, Streamed):
        check_audio(config.data.train, data.train_cuts)
    check_audio(config.data.dev, data.dev_cuts)


def report_dropped(config: ExperimentConfig, data: SpeechData, console: Console) -> None:
    """List the dropped utterances in dropped.tsv and print the first few; a stream adds its own as they come."""
    path = config.out / "dropped.tsv"
    if isinstance(data.corpus, Streamed):
        data.corpus.listing = partial(_list_dropped, path, dropped_summary(data.dropped), console)
    else:
        write_whole(path, dropped_summary(data.dropped))
    for d in data.dropped[:5]:
        console.print(f"left out {d.id}: {d.reason}", soft_wrap=True, markup=False)
    if len(data.dropped) > 5:
        console.print(f"left out {len(data.dropped)} utterances in all, listed in {path}", soft_wrap=True)


@contextmanager
def _list_dropped(path: Path, known: str, console: Console, epoch: int) -> Iterator[Note]:
    """Write what is known, then what the stream drops in its first epoch; later epochs drop the same."""
    if epoch > 0:
        yield lambda dropped: None
        return
    count = 0
    with path.open("w", encoding="utf-8", buffering=1) as file:
        file.write(known)

        def note(dropped: Dropped) -> None:
            nonlocal count
            count += 1
            file.write(dropped_summary([dropped]))

        yield note
    if count:
        console.print(f"left out {count} utterances of the stream, listed in {path}", soft_wrap=True)


def measure_normalization(parts: ModelFolder, data: SpeechData, console: Console = _QUIET) -> None:
    """Fill the global normalisation with the mean and standard deviation of the training features.

    A large corpus is sampled at regular intervals, a stream by its first cuts.
    """
    front_end = parts.model.front_end
    normalization = front_end.normalization
    assert isinstance(normalization, GlobalNormalization)
    count, total, squares = 0, torch.zeros_like(normalization.mean_F), torch.zeros_like(normalization.mean_F)
    total, squares = total.double(), squares.double()
    cuts = data.train_cuts[:: math.ceil(len(data.train_cuts) / _MEASURED)]
    for cut in track(cuts, "measuring features", console=console, transient=True):
        batch = data.dev_batch([cut])
        x_TF = front_end.spectrum(batch.audio_BN, batch.audio_len_B).x_BTF[0].double()
        count, total, squares = count + len(x_TF), total + x_TF.sum(0), squares + x_TF.square().sum(0)
    mean = total / count
    normalization.mean_F.copy_(mean)
    normalization.std_F.copy_((squares / count - mean.square()).clamp(min=1e-4).sqrt())


def total_steps(config: ExperimentConfig, data: SpeechData) -> int | None:
    """Return the optimiser steps of the run, None if unknown; the batches of epochs are counted by making them.

    Raises ConfigError if a cosine schedule over epochs would need the length of a stream.
    """
    limits = [config.trainer.max_steps] if config.trainer.max_steps else []
    cosine = config.optimizer.schedule == "cosine"
    if cosine and not limits and not data.corpus.countable:
        raise ConfigError("optimizer.schedule: a cosine over a streamed corpus needs trainer.max_steps")
    if config.trainer.max_epochs and (cosine or not limits) and data.corpus.countable:
        batches = sum(1 for epoch in range(config.trainer.max_epochs) for _ in data.stream.epoch(epoch))
        limits.append(-(-batches // config.trainer.accumulate))
    return min(limits) if limits else None

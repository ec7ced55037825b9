"""The scores of one or more systems as a page for a browser: a single HTML file without external resources.

The figures come from `asr.scoring`, the alignments from jiwer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from asr.progress import OnDone, unseen
from asr.report.media import Source, media_of, pictures_in, worst
from asr.report.utterances import aligned
from asr.report.writing import claim, write_page
from asr.scoring import ScoreOptions, compare
from asr.scoring.rows import PathLike

__all__ = ["write_report"]

Bar = Callable[[str], AbstractContextManager[OnDone]]


def write_report(
    reference: PathLike,
    hypotheses: Sequence[PathLike],
    options: ScoreOptions,
    folder: Path,
    *,
    audio: Path | None = None,
    images: Path | None = None,
    media: int = 50,
    utterances: int = 20_000,
    failed: Callable[[str], None] = lambda line: None,
    bar: Bar = lambda what: nullcontext(unseen),
) -> Path:
    """Score files as `compare` does, write `folder`/report.html and return its path.

    utterances: number of utterances on the page, those with most errors.  audio: a folder of files named by id, or a
    manifest of cuts; images: a folder of PNG or JPEG named by id; media: how many of the worst utterances get media.
    failed: called with a one-line message for each medium that cannot be read.  bar: opens a progress bar with a title.
    Raises whatever `compare` raises, and DataError if the file to write exists but is not such a page.
    """
    path = claim(folder)
    # Utterances are always grouped by length, which counts words whatever the metrics.
    options = replace(options, breakdown=("length", *options.breakdown))
    with bar("scoring") as on_done:
        comparison = compare(reference, hypotheses, options, on_done)
    with bar("aligning") as on_done:
        shown = aligned(comparison, reference, hypotheses, options, most=utterances, on_done=on_done)
    with_media = worst(shown, media) if audio or images else []
    sources: list[Source] = [pictures_in(images)] if images else []
    if audio:
        from asr.report.clips import clips_from  # imports torch and lhotse, which takes seconds

        sources.append(clips_from(audio, {utterance.id for utterance in with_media}))
    with bar("writing") as on_done:
        found = media_of(with_media, sources, failed=failed, on_done=on_done) if sources else None
        write_page(path, comparison, shown, found, Path(reference).name)
    return path

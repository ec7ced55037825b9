"""The scores of one or several systems as a page for a browser: one HTML file that loads nothing.

Its figures are those of `asr.scoring`, and its alignments jiwer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from asr.report.media import Source, media_of, pictures_in, worst
from asr.report.utterances import OnDone, aligned
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
    bar: Bar = lambda what: nullcontext(lambda done, total: None),
) -> Path:
    """Score files as `compare` does and write `folder`/report.html, whose path is given back.

    utterances: how many of them the page holds, those with most errors.  audio: a folder of files named by id, or a
    manifest of cuts; images: a folder of PNG or JPEG named by id; media: how many of the worst utterances get some.
    failed: told, a line each, what of that cannot be read.  bar: a progress bar under a name.
    Raises what `compare` raises, and DataError for a file in place of the page that is no such page.
    """
    path = claim(folder)
    # The length counts words, whatever the metrics.
    options = replace(options, breakdown=("length", *options.breakdown))
    with bar("scoring") as on_done:
        comparison = compare(reference, hypotheses, options, on_done)
    with bar("aligning") as on_done:
        shown = aligned(comparison, reference, hypotheses, options, most=utterances, on_done=on_done)
    with_media = worst(shown, media) if audio or images else []
    sources: list[Source] = [pictures_in(images)] if images else []
    if audio:
        from asr.report.clips import clips_from  # torch and lhotse take seconds

        sources.append(clips_from(audio, {utterance.id for utterance in with_media}))
    with bar("writing") as on_done:
        found = media_of(with_media, sources, failed=failed, on_done=on_done) if sources else None
        write_page(path, comparison, shown, found, Path(reference).name)
    return path

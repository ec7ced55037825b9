"""Write figures, utterances and media to one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from asr.errors import DataError, printable
from asr.files import make_folder, write_atomically
from asr.metrics import Unit
from asr.report import figures
from asr.report.media import Medium
from asr.report.utterances import Shown, fields_of, script_json, unit_of
from asr.scoring import Comparison, ScoreReport, spelled

GENERATOR = "asr report"
NAME = "report.html"
_HEAD_BYTES = 1024
_SCRIPTS = ("alignment.js", "rows.js", "main.js")
_RATES: dict[Unit, str] = {"word": "WER", "character": "CER", "token": "MIXED"}
_MOST_VALUES = 500  # values of a field offered as a filter


def claim(folder: Path) -> Path:
    """Make the folder of a report and return the path of its page.

    Raises DataError if a file with that name exists that is not such a page.
    """
    make_folder(folder)
    path = folder / NAME
    if path.exists():
        with path.open("rb") as file:
            if f'content="{GENERATOR}"'.encode() not in file.read(_HEAD_BYTES):
                raise DataError(
                    f"{printable(path)}: was not written by {GENERATOR}: give another --out, or move it away"
                )
    return path


def write_page(
    path: Path, comparison: Comparison, utterances: Sequence[Shown], media: Iterable[Medium] | None, title: str
) -> None:
    """Write the page; media are requested one by one while it is written, and not kept in memory."""
    page = _environment().get_template("report.html")
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        # Undecodable bytes are lone surrogates; backslashreplace writes them in the form of JSON's escapes.
        values = _values(comparison, utterances, title)
        file.writelines(page.generate(**values, media=media or (), has_media=media is not None))


def _values(comparison: Comparison, utterances: Sequence[Shown], title: str) -> dict[str, Any]:
    systems = figures.systems_of(comparison)
    first = systems[0].report
    unit = unit_of(comparison)
    fields = fields_of(comparison, unit)
    data = {
        "unit": unit,
        "letters": [system.letter for system in systems],
        "fields": [
            {"name": groups.field, "values": list(groups.names) if len(groups.names) <= _MOST_VALUES else []}
            for groups in fields
        ],
    }
    style = _part("style.css")
    script = "\n".join(map(_part, _SCRIPTS))
    return {
        "generator": GENERATOR,
        "title": title,
        "report": first,
        "systems": systems,
        "unit": unit,
        "rate": _RATES[unit],
        "rates": list(figures.rates_of(systems)),
        "kinds": figures.kinds_of(systems, unit),
        "confusions": [(system, _confusions(system.report)) for system in systems if unit == "word"],
        "sentences": [contest.sentence() for contest in comparison.contests()],
        "fields": list(figures.by_fields(systems, fields, unit, _RATES[unit].lower())),
        "utterances": utterances,
        "data": script_json(data),
        "style": style,
        "script": script,
        "hashes": {"style": _hash(style), "script": _hash(script)},
    }


def _confusions(report: ScoreReport) -> dict[str, list[dict[str, Any]]]:
    return report.confusions.as_dict(report.most_confusions) if report.confusions else {}


def _environment() -> jinja2.Environment:
    """Return an environment that escapes all values unless marked as safe, and raises an error for unknown names."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("asr.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spelled"] = spelled
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.2f}"
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment


def _part(name: str) -> str:
    return (Path(__file__).parent / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows this script or style only."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

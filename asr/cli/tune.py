"""`asr tune`: weights of the search that suit a dev set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from asr.cli.inputs import batch_seconds, load_recognizer
from asr.cli.normalize import NORMALIZER_HELP
from asr.cli.options import BatchSize, BeamSize, Cuts, Device, Dtype, Lm, LmUnit, Model
from asr.cli.terminal import progress, say

if TYPE_CHECKING:
    from asr.tuning import Tried

Rate = Literal["wer", "cer"]


def tune(
    cuts: Cuts,
    model: Model,
    grid: Annotated[
        list[str], typer.Option("--grid", help="Values to try, such as lm_weight=0,0.1,0.3; several make all pairs.")
    ],
    lm: Lm = None,
    lm_unit: LmUnit = None,
    hotwords: Annotated[Path | None, typer.Option("--hotwords", help="File of names and words to listen for.")] = None,
    beam_size: BeamSize = None,
    metric: Annotated[Rate, typer.Option("--metric", help="What the best setting has least of.")] = "wer",
    normalizer: Annotated[
        str | None, typer.Option(help=f"{NORMALIZER_HELP}; for both sides. [default: the model's own]")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Only the cuts in this language.")] = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    batch_size: BatchSize = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Try weights of the search on a manifest, and tell which suit it best: nothing is to be reported on it later.

    A grid may have lm_weight, ctc_weight, length_bonus, length_penalty, phrase_bonus and beam_size.

    Example: `asr tune dev.jsonl.gz --model exp/en/model --lm lm.arpa --grid lm_weight=0,0.2,0.4 --grid ctc_weight=0.5`
    """
    from asr.tuning import parse_grid
    from asr.tuning import tune as try_all

    values = parse_grid(grid)
    search = {"lm": lm, "lm_unit": lm_unit, "phrases": hotwords, "beam_size": beam_size}
    recognizer = load_recognizer(model, device, dtype, **search)
    with progress("decoding") as on_done:
        tried = try_all(
            recognizer,
            cuts,
            values,
            normalizer=normalizer,
            language=language,
            batch_s=batch_seconds(batch_size),
            on_done=on_done,
        )
    if as_json:
        print(json.dumps([each.as_dict() for each in tried], ensure_ascii=False))
        return
    _print(tried, metric)
    say(f"these rates are of {cuts}, which they were tuned on: report others")


def _print(tried: Sequence[Tried], metric: Rate) -> None:
    from asr.tuning import best_of

    best, names = best_of(tried, metric), list(tried[0].setting)
    print(
        "  "
        + "".join(f"{name:>16}" for name in names)
        + "".join(f"{m:>9}{'95 % interval':>18}" for m in ("WER", "CER"))
    )
    for each in tried:
        rates = "".join(f"{_rate(each, m):>9}{_interval(each, m):>18}" for m in ("wer", "cer"))
        print(("* " if each is best else "  ") + "".join(f"{each.setting[name]:>16g}" for name in names) + rates)
    setting = " ".join(f"{name}={value:g}" for name, value in best.setting.items())
    print(f"least {metric.upper()}: {setting}")


def _rate(tried: Tried, metric: str) -> str:
    return f"{100 * tried.report.values[metric]:.2f}"


def _interval(tried: Tried, metric: str) -> str:
    low, high = (100 * end for end in tried.report.intervals[metric][:2])
    return f"{low:.2f} to {high:.2f}"

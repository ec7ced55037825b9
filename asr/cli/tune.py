"""`asr tune`: find the decoding weights that suit a dev set best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from asr.cli.normalize import NORMALIZER_HELP
from asr.cli.options import BatchSeconds, BeamSize, Cuts, Decode, Device, Dtype, Hotwords, Lm, LmUnit, Model, Task
from asr.cli.scoring import say_left_out
from asr.cli.searching import Searching
from asr.cli.terminal import progress, say
from asr.errors import ConfigError
from asr.tasks import chosen

if TYPE_CHECKING:
    from asr.tuning import Tried

Measured = Literal["wer", "cer", "bleu", "chrf"]


def tune(
    cuts: Cuts,
    model: Model,
    grid: Annotated[
        list[str],
        typer.Option("--grid", help="Values to try, such as lm_weight=0,0.1,0.3; several make all combinations."),
    ],
    lm: Lm = None,
    lm_unit: LmUnit = None,
    hotwords: Hotwords = None,
    beam_size: BeamSize = None,
    decode: Decode = None,
    metric: Annotated[
        Measured | None,
        typer.Option(
            "--metric", help="Metric that decides which setting is best. [default: wer; for translations bleu]"
        ),
    ] = None,
    normalizer: Annotated[
        str | None, typer.Option(help=f"{NORMALIZER_HELP}; for both sides. [default: the model's own]")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Only the cuts in this language.")] = None,
    task: Task = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    batch_seconds: BatchSeconds = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Grid-search decoding weights on a dev set; do not report its scores, as the weights are fitted to it.

    A grid may have lm_weight, ctc_weight, length_bonus, length_penalty, phrase_bonus and beam_size.  Translations are
    scored by BLEU and chrF against those in the cuts; cuts without one are named and left out.

    Example: `asr tune dev.jsonl.gz --model exp/en/model --lm lm.arpa --grid lm_weight=0,0.2,0.4 --grid ctc_weight=0.5`
    """
    from asr.loading import load_model
    from asr.scoring import metrics_of
    from asr.tuning import parse_grid
    from asr.tuning import tune as try_all

    values = parse_grid(grid)
    search = Searching(lm=lm, lm_unit=lm_unit, phrases=hotwords, beam_size=beam_size, decode=decode)
    recognizer = load_model(model, device=device, dtype=dtype, **search.given())
    measured = metrics_of(chosen(task, recognizer.tokenizer.tasks))
    if metric is not None and metric not in measured:
        raise ConfigError(f"--metric {metric}: this task is measured by {' and '.join(measured)}")
    with progress("decoding") as on_done:
        found = try_all(
            recognizer,
            cuts,
            values,
            normalizer=normalizer,
            language=language,
            task=task,
            batch_s=batch_seconds,
            on_done=on_done,
        )
    say_left_out(cuts, found.left_out)
    if as_json:
        print(json.dumps([each.as_dict() for each in found.tried], ensure_ascii=False))
        return
    _print(found.tried, metric or measured[0])
    say(f"the weights were tuned on {cuts}: report scores on other data")


def _print(tried: Sequence[Tried], metric: str) -> None:
    from asr.scoring import MORE_IS_BETTER, points, spelled
    from asr.tuning import best_of

    best, names, measured = best_of(tried, metric), list(tried[0].setting), tried[0].report.metrics
    heads = "".join(f"{spelled(m):>9}{'95 % interval':>18}" for m in measured)
    print("  " + "".join(f"{name:>16}" for name in names) + heads)
    for each in tried:
        figures = "".join(f"{points(m, each.report.values[m]):>9.2f}{_interval(each, m):>18}" for m in measured)
        print(("* " if each is best else "  ") + "".join(f"{each.setting[name]:>16g}" for name in names) + figures)
    setting = " ".join(f"{name}={value:g}" for name, value in best.setting.items())
    print(f"{'most' if metric in MORE_IS_BETTER else 'least'} {spelled(metric)}: {setting}")


def _interval(tried: Tried, metric: str) -> str:
    from asr.scoring import points

    low, high = (points(metric, end) for end in tried.report.intervals[metric][:2])
    return f"{low:.2f} to {high:.2f}"

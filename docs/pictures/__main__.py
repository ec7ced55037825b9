"""Draw the pictures of docs/methods.md: `python -m docs.pictures --models exp/ablation/en`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from asr.errors import AsrError, ConfigError
from asr.files import make_folder
from benchmarks.script import run_script
from docs.pictures import attention, beam, decoding, encoder, inputs, searching, training
from docs.pictures.material import Material
from docs.pictures.style import STYLE, save

PLAIN: Mapping[str, Callable[[], Figure]] = {**attention.PLAIN, **encoder.PLAIN, **training.PLAIN}
OF_SPEECH: Mapping[str, Callable[[Material], Figure]] = {
    **inputs.OF_SPEECH,
    **encoder.OF_SPEECH,
    **training.OF_SPEECH,
    **decoding.OF_SPEECH,
    **beam.OF_SPEECH,
    **searching.OF_SPEECH,
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Only these pictures.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder of the PNG files.")] = Path("docs/methods"),
    models: Annotated[Path, typer.Option(help="Trained models: holds ROW/SEED/model of conf/ablation.yaml.")] = Path(
        "exp/ablation/en"
    ),
    pointer: Annotated[Path, typer.Option(help="Model of conf/prompts/copying-tiny-en.yaml.")] = Path(
        "exp/prompts-copying-tiny-en/model"
    ),
    conf: Annotated[Path, typer.Option(help="Experiment whose dev clips are drawn.")] = Path("conf/prompts/en.yaml"),
) -> None:
    """Draw all pictures; one whose model or clip is missing is left out with a message, and the exit status is 1.

    Example: `python -m docs.pictures windows norms --models exp/ablation/en`
    """
    material, console = Material(models, pointer, conf), Console(stderr=True, soft_wrap=True)
    todo: dict[str, Callable[[], Figure]] = {**PLAIN}
    todo |= {name: partial(draw, material) for name, draw in OF_SPEECH.items()}
    if unknown := sorted(set(names or ()) - set(todo)):
        raise ConfigError(f"no picture {', '.join(unknown)}; there are {', '.join(sorted(todo))}")
    make_folder(out)
    missing = 0
    for name in track(names or list(todo), "drawing", console=console, transient=True):
        try:
            with mpl.rc_context(STYLE):
                save(todo[name](), out / f"{name}.png")
        except AsrError as e:
            console.print(f"{name}: left out: {e}", markup=False, highlight=False)
            missing += 1
    if missing:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_script(main)

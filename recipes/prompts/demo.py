"""Demonstrate the whole process on real speech: Whisper tiny.en before and after training on the English prompts.

Run `make demo`; the corpus must be prepared.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from asr.checkpoint import load_model_folder
from asr.config import ExperimentConfig, read_config
from asr.data.cuts import read_cuts, text_of
from asr.errors import AsrError
from asr.evaluate import evaluate
from asr.pretrained import import_model
from asr.recognizer import Recognizer
from asr.recognizer.cuts import cut_source
from asr.training.run import train
from asr.transcript import Failure

CONFIG = Path("conf/prompts/finetune-tiny-en.yaml")
NORMALIZER = "english"


def main(
    data: Annotated[Path, typer.Option(help="Folder of the prepared corpus.")] = Path("data/prompts"),
    out: Annotated[Path, typer.Option(help="Folder for models, texts and plots.")] = Path("exp/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A few steps and greedy search: does it run at all?")] = False,
) -> None:
    """Import tiny.en, evaluate it on test, train it further, evaluate again, and print one table.

    Example: `python recipes/prompts/demo.py --quick --out exp/quick`
    """
    console = Console()
    before = out / "whisper-tiny.en"
    if not (before / "model.safetensors").exists():
        import_model("whisper-tiny.en", before)
    overrides = [f"init={before}", f"out={out / 'finetune'}"]
    overrides += [f"data.{split}={data / f'cuts_{split}.jsonl.gz'}" for split in ("train", "dev")]
    if quick:
        overrides += ["trainer.max_steps=4", "trainer.validate_every_steps=4"]
    config = read_config(ExperimentConfig, CONFIG, overrides)
    began = time.monotonic()
    after = train(config, console)
    train_s = time.monotonic() - began
    test = data / "cuts_test.jsonl.gz"
    beams = (1,) if quick else (1, 5)
    scores = {folder: {beam: _score(folder, test, beam) for beam in beams} for folder in (before, after)}
    console.print(_table(scores, before, after, config, train_s))
    _show_texts(console, before, after, test)
    run = config.out
    console.print(
        f"curves: {run / 'learning_curves.png'}; attention: {run / 'plots'}; all figures: {run / 'run.json'}",
        soft_wrap=True,
    )


def _score(folder: Path, test: Path, beam: int) -> dict[str, Any]:
    parts = load_model_folder(folder)
    options = parts.config.decode.model_copy(update={"beam_size": beam})
    return evaluate(Recognizer(parts, options), test, folder, normalizer=NORMALIZER, language="en").as_dict()


def _table(
    scores: dict[Path, dict[int, dict[str, Any]]], before: Path, after: Path, config: ExperimentConfig, train_s: float
) -> Table:
    run = json.loads((config.out / "run.json").read_text(encoding="utf-8"))
    title = (
        f"prompts, English, test; trained on {run['audio_s_seen'] / 60:.1f} audio minutes "
        f"(repetitions counted) in {train_s:.0f} s; {run['parameters']:,} parameters"
    )
    table = Table(title=title, title_justify="left", title_style="")
    for column in ("", "search", "WER %", "CER %", "times real time"):
        table.add_column(column, justify="left" if column in ("", "search") else "right")
    for name, folder in (("before", before), ("after", after)):
        for beam, found in scores[folder].items():
            rates = [f"{100 * found['metrics'][m]['rate']:.2f}" for m in ("wer", "cer")]
            table.add_row(name, "greedy" if beam == 1 else f"beam {beam}", *rates, f"{found['times_real_time']:.1f}")
    return table


def _show_texts(console: Console, before: Path, after: Path, test: Path) -> None:
    cuts = [cut for cut in read_cuts(test) if cut.supervisions[0].language == "en"]
    chosen = sorted(cuts, key=lambda cut: cut.id)[:: max(1, len(cuts) // 5)][:5]
    texts = []
    for folder in (before, after):
        recognizer = Recognizer(load_model_folder(folder))
        sources = [cut_source(cut, recognizer.rate) for cut in chosen]
        texts.append([t.reason if isinstance(t, Failure) else t.text for t in recognizer.transcribe_sources(sources)])
    for cut, old, new in zip(chosen, *texts, strict=True):
        console.print(
            f"{cut.id}\n  said    {text_of(cut)}\n  before  {old}\n  after   {new}", markup=False, soft_wrap=True
        )


if __name__ == "__main__":
    try:
        typer.run(main)
    except AsrError as e:
        raise SystemExit(f"demo: {e}") from None

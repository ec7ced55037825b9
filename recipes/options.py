"""Common options of the recipes for published corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.machine import cores

OPENSLR = "https://www.openslr.org/resources"
CORES = cores()

Out = Annotated[Path, typer.Option(help="Folder for the cuts and what is fetched.")]
Source = Annotated[Path | None, typer.Option(help="Folder with the corpus or its archives; then nothing is fetched.")]
Unpacked = Annotated[Path, typer.Option("--source", help="Folder with the corpus, unpacked.")]
Mirror = Annotated[str, typer.Option(help="Fetch archives from here.")]
Shar = Annotated[int | None, typer.Option(min=1, help="Also write shards of this many cuts with their audio (Shar).")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that read recordings.")]

"""Faults under load: kills, full disks, broken audio, and what is found afterwards."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # which make models, corpora and hostile files of nothing

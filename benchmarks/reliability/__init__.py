"""Faults under load: kills, full disks and broken audio, and checks of what they leave behind."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # whose helpers make models, corpora and hostile files

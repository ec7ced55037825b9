"""`python -m asr.ablation TASK.json` measures a model for `asr ablate`, which starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from asr.ablation.measure import Measuring, measure
from asr.config import read_config
from asr.errors import AsrError

if __name__ == "__main__":
    try:
        measure(read_config(Measuring, Path(sys.argv[1])))
    except (AsrError, OSError) as e:
        sys.exit(f"asr: {e}")

"""An ablation study of tiny models on noise: its YAML and its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from asr.ablation.plan import Plan
from asr.config import AblationConfig, read_config

ROWS: dict[str, Any] = {
    "post": {"set": {"model.encoder.norm": "post"}},
    "wide": {"decode": {"beam_size": 2}},
    "mean": {"average": True},
    "longer": {"from": "base", "share": 0.5, "set": {"optimizer.lr": 1e-4}},
}


def tree(folder: Path, experiment: Path, **changes: Any) -> dict[str, Any]:
    """Return the configuration of an ablation, as nested dicts for its YAML."""
    found = {
        "runs": str(folder / "runs"),
        "results": str(folder / "results.jsonl"),
        "report": str(folder / "ABLATION.md"),
        "seeds": [0, 1],
        "budget": {"max_steps": 4, "validations": 2, "timed_steps": 0},
        "set": {"trainer.plot_utterances": 0, "trainer.save_every_steps": 2, "loss.guided_attention.weight": 0.0},
        "corpora": {"noise": {"base": str(experiment), "test": str(folder / "test.jsonl.gz")}},
        "rows": ROWS,
    }
    return found | changes


def written(path: Path, found: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    return path


def plan(folder: Path, experiment: Path, **changes: Any) -> Plan:
    path = written(folder / "ablation.yaml", tree(folder, experiment, **changes))
    return Plan(read_config(AblationConfig, path), path)

"""The training loss as a weighted sum of independent criteria that share one pass through the model."""

from __future__ import annotations

from asr.training.criteria.base import Criteria, Criterion, Pass
from asr.training.criteria.build import build_criteria

__all__ = ["Criteria", "Criterion", "Pass", "build_criteria"]

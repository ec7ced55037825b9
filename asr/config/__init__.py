"""The options of experiments and model folders, and their YAML files."""

from __future__ import annotations

from .attention import ChunkConfig, WindowConfig
from .base import Config
from .criteria import MinimumErrorConfig, ScheduledSamplingConfig
from .model import (
    DecodeConfig,
    DecoderConfig,
    EncoderConfig,
    FeaturesConfig,
    GuardConfig,
    KaldiFeaturesConfig,
    LogMelConfig,
    ModelConfig,
    ModelFolderConfig,
    Padding,
    SubsamplingConfig,
    TokenizerConfig,
    WhisperFeaturesConfig,
)
from .reading import parse_yaml, read_config, to_yaml, validate
from .training import (
    EXPERIMENT,
    AdaptConfig,
    AugmentConfig,
    DataConfig,
    ExperimentConfig,
    GuidedAttentionConfig,
    LossConfig,
    OptimizerConfig,
    PlateauConfig,
    TrainerConfig,
    check_processes,
)

__all__ = [
    "EXPERIMENT",
    "AdaptConfig",
    "AugmentConfig",
    "ChunkConfig",
    "Config",
    "DataConfig",
    "DecodeConfig",
    "DecoderConfig",
    "EncoderConfig",
    "ExperimentConfig",
    "FeaturesConfig",
    "GuardConfig",
    "GuidedAttentionConfig",
    "KaldiFeaturesConfig",
    "LogMelConfig",
    "LossConfig",
    "MinimumErrorConfig",
    "ModelConfig",
    "ModelFolderConfig",
    "OptimizerConfig",
    "Padding",
    "PlateauConfig",
    "ScheduledSamplingConfig",
    "SubsamplingConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "WhisperFeaturesConfig",
    "WindowConfig",
    "check_processes",
    "parse_yaml",
    "read_config",
    "to_yaml",
    "validate",
]

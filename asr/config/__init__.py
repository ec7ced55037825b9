"""The options of experiments and model folders, and their YAML files."""

from __future__ import annotations

from .ablation import BASE, AblationConfig, CorpusConfig, RowConfig
from .model import (
    Config,
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
from .reading import parse_yaml, read_config, read_tree, set_key, to_yaml, validate
from .training import (
    BROUGHT,
    AdaptConfig,
    AugmentConfig,
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    TrainerConfig,
)

__all__ = [
    "BASE",
    "BROUGHT",
    "AblationConfig",
    "AdaptConfig",
    "AugmentConfig",
    "Config",
    "CorpusConfig",
    "DataConfig",
    "DecodeConfig",
    "DecoderConfig",
    "EncoderConfig",
    "ExperimentConfig",
    "FeaturesConfig",
    "GuardConfig",
    "KaldiFeaturesConfig",
    "LogMelConfig",
    "LossConfig",
    "ModelConfig",
    "ModelFolderConfig",
    "OptimizerConfig",
    "Padding",
    "RowConfig",
    "SubsamplingConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "WhisperFeaturesConfig",
    "parse_yaml",
    "read_config",
    "read_tree",
    "set_key",
    "to_yaml",
    "validate",
]

"""The options of experiments and model folders, and their YAML files."""

from __future__ import annotations

from .language import (
    LanguageDataConfig,
    LanguageExperimentConfig,
    LanguageFolderConfig,
    LanguageModelConfig,
    LanguageTrainerConfig,
)
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
    TrainerConfig,
)

__all__ = [
    "EXPERIMENT",
    "AdaptConfig",
    "AugmentConfig",
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
    "LanguageDataConfig",
    "LanguageExperimentConfig",
    "LanguageFolderConfig",
    "LanguageModelConfig",
    "LanguageTrainerConfig",
    "LogMelConfig",
    "LossConfig",
    "ModelConfig",
    "ModelFolderConfig",
    "OptimizerConfig",
    "Padding",
    "SubsamplingConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "WhisperFeaturesConfig",
    "parse_yaml",
    "read_config",
    "to_yaml",
    "validate",
]

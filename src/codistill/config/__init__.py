"""What to train: typed, strict, readable without importing torch."""

from codistill.config.data import SOURCES, DataConfig, SourceFacts
from codistill.config.experiment import Config, baseline, check, completed
from codistill.config.model import ModelConfig
from codistill.config.objective import ObjectiveConfig
from codistill.config.training import OptimizerConfig, RunConfig, ScheduleConfig, TrainingConfig

__all__ = [
    "SOURCES",
    "Config",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "SourceFacts",
    "TrainingConfig",
    "baseline",
    "check",
    "completed",
]

"""Training: one loop for every model in the library, with averaged weights and checkpoints that survive."""

from minidiff.common import CheckpointError
from minidiff.training.config import TrainConfig, TrainingDiverged, learning_rate_at
from minidiff.training.ema import EMA
from minidiff.training.loop import TrainResult, train
from minidiff.training.objectives import ConditionDropout, Denoising, JointDenoising
from minidiff.training.sources import Source, TensorSource, fold_in, shuffled

__all__ = [
    "EMA",
    "CheckpointError",
    "ConditionDropout",
    "Denoising",
    "JointDenoising",
    "Source",
    "TensorSource",
    "TrainConfig",
    "TrainResult",
    "TrainingDiverged",
    "fold_in",
    "learning_rate_at",
    "shuffled",
    "train",
]

"""Training: optimizers, schedules, the loop, what happens around it, and checkpoints."""

from striate.train import checkpoint, metric, optim, schedule
from striate.train.callback import Callback, EarlyStopping, Monitor, OnBatch, OnEpoch
from striate.train.loop import Best, Run, evaluate, fit, to_tensors
from striate.train.metric import Accuracy, Metric, TopK, confusion_matrix, precision_recall
from striate.train.optim import SGD, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm_

__all__ = [
    "SGD",
    "Accuracy",
    "Adam",
    "AdamW",
    "Best",
    "Callback",
    "EarlyStopping",
    "Metric",
    "Monitor",
    "OnBatch",
    "OnEpoch",
    "Optimizer",
    "RMSprop",
    "Run",
    "TopK",
    "checkpoint",
    "clip_grad_norm_",
    "confusion_matrix",
    "evaluate",
    "fit",
    "metric",
    "optim",
    "precision_recall",
    "schedule",
    "to_tensors",
]

"""Entry for ``wave``: folded fields on 8x8, exact augmentation (signs, mirroring, linearity).

Level, width and rate are those of the suite ``wave_64``, chosen there on fewer samples.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import multigrid

SETTINGS = (
    "levels=[8, 64]",
    "model.fields=folded",
    "model.width=32",
    "model.activation=silu",
    "data.noise=0",
    "schedule.cycle=half-v",
    "schedule.batch_size=16",
    "loss.name=rel_l1",
    "schedule.epochs=[110, 0]",
    "schedule.learning_rate=4e-3",
    "data.extra_tests={}",
    "output.figures=false",
)

FINEST = (
    "schedule.cycle=single",
    "model.width={outer: 16, max: 64}",
    "model.activation=silu",
    "schedule.batch_size=4",
    "schedule.learning_rate=3e-3",
    "output.figures=false",
)
"""Settings of the entries for flows: the finest grid alone."""


class Predictor:
    """Maps inputs to outputs, and knows the operations of its training."""

    def __init__(self, surrogate: multigrid.TrainedSurrogate, flops: float) -> None:
        self.surrogate = surrogate
        self.flops = flops

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Predicts on the finest grid."""
        return self.surrogate.predict(inputs)


def train_with(settings: Sequence[str], seed: int, experiment: str = "cno/wave") -> Predictor:
    """Trains on an experiment's samples, which are the very ones of its target."""
    with TemporaryDirectory() as folder:
        surrogate = multigrid.train(
            f"experiments/{experiment}.yaml", f"seed={seed}", f"output.folder={folder}", *settings
        )
        summary = json.loads(next(Path(folder).glob("*/summary.json")).read_text())
    return Predictor(surrogate, summary["flops"])


def train(training: object, validation: object, seed: int) -> Predictor:
    """Trains a ladder."""
    return train_with(SETTINGS, seed)

"""Entry for ``navier_stokes``: the finest grid alone, exact augmentation (shifts, mirrors, turns).

Width, batches and rate are those of the shear layer in the published tables.
"""

from experiments.speedrun.ladder import FINEST, Predictor, train_with

SETTINGS = (*FINEST, "loss.name=rel_l2", "schedule.epochs=8")


def train(training: object, validation: object, seed: int) -> Predictor:
    """Trains the network."""
    return train_with(SETTINGS, seed, "navier_stokes_ten")

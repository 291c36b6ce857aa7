"""Entry for ``navier_stokes``: the finest grid alone, exact augmentation (shifts, mirrors, turns).

Width, batches and rate are those of the shear layer in the published tables.
"""

from experiments.speedrun.ladder import Predictor, train_with

SETTINGS = (
    "schedule.cycle=single",
    "model.width={outer: 16, max: 64}",
    "model.activation=silu",
    "loss.name=rel_l2",
    "schedule.batch_size=4",
    "schedule.learning_rate=3e-3",
    "schedule.epochs=8",
    "output.figures=false",
)


def train(training: object, validation: object, seed: int) -> Predictor:
    """Trains the network."""
    return train_with(SETTINGS, seed, "navier_stokes_ten")

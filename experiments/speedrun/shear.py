"""Entry for ``shear_layer``: the finest grid alone, exact augmentation (shifts, mirrors).

That of the published tables, which ends above the target; not yet run.
"""

from experiments.speedrun.ladder import Predictor, train_with

SETTINGS = (
    "schedule.cycle=single",
    "model.width={outer: 16, max: 64}",
    "model.activation=silu",
    "loss.name=rel_l1",
    "schedule.batch_size=4",
    "schedule.learning_rate=3e-3",
    "schedule.epochs=100",
    "data.extra_tests={}",
    "output.figures=false",
)


def train(training: object, validation: object, seed: int) -> Predictor:
    """Trains the network."""
    return train_with(SETTINGS, seed, "cno/shear_layer")

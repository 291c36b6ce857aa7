"""Entry for ``shear_layer``: the finest grid alone, exact augmentation (shifts, mirrors).

That of the published tables, which ends above the target; not yet run.
"""

from experiments.speedrun.ladder import FINEST, Predictor, train_with

SETTINGS = (*FINEST, "loss.name=rel_l1", "schedule.epochs=100", "data.extra_tests={}")


def train(training: object, validation: object, seed: int) -> Predictor:
    """Trains the network."""
    return train_with(SETTINGS, seed, "cno/shear_layer")

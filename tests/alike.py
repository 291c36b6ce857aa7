"""Whether two trainings are the same."""

import numpy as np
import torch

from multigrid.records.history import read_history
from multigrid.training.batches import draw
from multigrid.training.checkpoint import load_checkpoint


def assert_same_training(found, expected, tolerance=1e-4):
    """Losses, errors and weights agree up to rounding, which training amplifies."""
    ours, theirs = (read_history(folder / "metrics.csv") for folder in (found, expected))
    assert len(ours) == len(theirs)
    for key in ("train_loss", "val_rel_l2", "val_finest_rel_l2", "gradient_norm"):
        values = [[getattr(row, key) or 0.0 for row in rows] for rows in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=tolerance, err_msg=key)
    ours, theirs = (
        load_checkpoint(max(folder.glob("level_*/last.pt")))["network"]
        for folder in (found, expected)
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance / 10)


def augment(batch, symmetries, rng, mode_shifts=0.0):
    """As many new samples, made from a whole batch."""
    drawn = draw(len(batch), batch.grid, symmetries, rng, mode_shifts)
    return drawn.apply(batch, np.arange(len(batch)))

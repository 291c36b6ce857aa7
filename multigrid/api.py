"""Training from Python, as the command does it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multigrid import signals
from multigrid.config import Config, load_config, parse_config
from multigrid.config.section import plain
from multigrid.config.yaml_file import override
from multigrid.ladder.experiment import Extensions
from multigrid.metrics import Metric
from multigrid.models.growth import NetworkFactory
from multigrid.problems import PDE
from multigrid.run import train_ladder
from multigrid.surrogate import TrainedSurrogate, load
from multigrid.training.callbacks import Callback
from multigrid.training.losses import Loss
from multigrid.training.optimizers import OptimizerFactory


def train(
    experiment: str | Path | Mapping[str, Any] | Config,
    *overrides: str,
    resume: bool = False,
    overwrite: bool = False,
    problem: PDE | None = None,
    loss: Loss | None = None,
    network: NetworkFactory | None = None,
    callbacks: Sequence[Callback] = (),
    metrics: Mapping[str, Metric] | None = None,
    optimizer: OptimizerFactory | None = None,
    with_direct: bool = False,
) -> TrainedSurrogate:
    """Trains a ladder as ``multigrid run`` does, and loads it.

    Args:
        experiment: An experiment file, its content as a dictionary, or a configuration.
        overrides: Settings to replace, ``section.key=value``.
        resume: Continue an interrupted run.
        overwrite: Replace an earlier run.
        problem: A PDE of the user's own, instead of the section ``problem``.
        loss: Used instead of the one that the experiment names: maps a prediction
            ``[N, out, *grid]`` and a batch of :class:`Samples` to one number, a mean over samples.
        network: Factory of the user's own networks: called with the grid of a level, it gives a
            module that maps ``[N, in, *grid]`` to ``[N, out, *grid]``.
        callbacks: Told of the run while it trains, see :class:`multigrid.Callback`.
        metrics: Errors by name, beside those that are registered: a function of a prediction and
            the truth ``[N, 1, *grid]`` of a field to values ``[N]``.
        optimizer: Used instead of the one that the experiment names: maps parameter groups, each a
            mapping with ``params`` and ``weight_decay``, to a ``torch.optim.Optimizer``. The
            learning rate follows the schedule.
        with_direct: Then train on the finest grid alone with the same work, to compare: a run in
            the folder ``direct`` of the run's.

    Raises:
        UserError: For any mistake that the user can fix.
        KeyboardInterrupt: If a signal has asked to stop, Ctrl-C above all, after all was saved.

    Example:
        >>> surrogate = train("tiny.yaml", "name=smaller", "schedule.epochs=1")
        ... # doctest: +ELLIPSIS
        smaller: poisson (f -> u), pyramid UNet...
        >>> print(surrogate)
        smaller: f -> u on 8x8, 16x16
    """
    config = configure(experiment, *overrides, problem=problem)
    extensions = Extensions(loss, network, callbacks, metrics or {}, optimizer)
    try:
        with signals.watched():
            folder = train_ladder(config, resume, overwrite, extensions, with_direct)
    except signals.Interrupted as signal:
        raise KeyboardInterrupt(f"stopped by {signal}; resume=True goes on from here") from None
    return load(folder.path, network=network)


def configure(
    experiment: str | Path | Mapping[str, Any] | Config, *overrides: str, problem: PDE | None = None
) -> Config:
    """Returns the checked configuration of an experiment; for the arguments see :func:`train`.

    Raises:
        UserError: With one sentence for the first thing that is wrong.

    Example:
        >>> config = configure({"name": "mine", "problem": {"kind": "poisson"}, "levels": [32, 64]})
        >>> config.model.width
        48
    """
    if isinstance(experiment, str | Path):
        return load_config(experiment, overrides, problem)
    raw = experiment.model_dump() if isinstance(experiment, Config) else plain(experiment)
    for assignment in overrides:
        override(raw, assignment)
    return parse_config(raw, problem=problem)

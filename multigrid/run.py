"""Training a ladder: ``python -m multigrid.run experiments/poisson.yaml``, and from Python."""

import argparse
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multigrid import signals
from multigrid.cli import EXPERIMENT, command, flag, one_of
from multigrid.config import Config, flatten, load_config, parse_config, read_saved
from multigrid.config.section import plain
from multigrid.config.yaml_file import override
from multigrid.distributed import Processes, joined, num_processes
from multigrid.errors import UserError, printable
from multigrid.hardware import default_float32, keep_large_buffers
from multigrid.problems import PDE
from multigrid.records.run_folder import RunFolder
from multigrid.report.record import RunRecord, describe

if TYPE_CHECKING:
    from multigrid.ladder.experiment import Extensions
    from multigrid.metrics import Metric
    from multigrid.models.growth import NetworkFactory
    from multigrid.surrogate import TrainedSurrogate
    from multigrid.training.callbacks import Callback
    from multigrid.training.losses import Loss
    from multigrid.training.optimizers import OptimizerFactory

log = logging.getLogger("multigrid")


def _how_to_continue(call: str, options: argparse.Namespace) -> str:
    direct = ["--with-direct"] * options.with_direct
    arguments = shlex.join([str(options.experiment), *options.overrides, *direct])
    return f"continue with: {call} {arguments} --resume"


@command(
    *EXPERIMENT,
    flag("--with-direct", "then train on the finest grid alone with the same work, to compare"),
    one_of(
        flag("--resume", "continue an interrupted run; start it if there is none"),
        flag("--overwrite", "replace an earlier run"),
        flag("--dry-run", "print ladder, schedule and cost, then stop"),
    ),
    examples=(
        "experiments/poisson.yaml",
        "experiments/poisson.yaml name=wide model.width=64",
        'experiments/poisson.yaml "schedule.epochs=[2,1,1,1]" --dry-run',
        "experiments/poisson.yaml --resume",
        "experiments/poisson.yaml --with-direct --resume",
    ),
    on_signal=_how_to_continue,
)
def run(options: argparse.Namespace) -> None:
    """Trains a ladder of UNets from a coarse grid to a fine one."""
    if num_processes() > 1:  # a sentence tells of broken connections, not the frames of C++
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # read when torch is imported
    try:
        config = load_config(options.experiment, options.overrides)
    except UserError:
        with joined("auto", "ddp"):  # so that the other processes, if there are any, hear of it
            raise
    if not options.dry_run:
        keep_large_buffers()  # this process does nothing else
        train_ladder(config, options.resume, options.overwrite, with_direct=options.with_direct)
        return
    from multigrid.ladder.cost import overview, warn_of_memory
    from multigrid.ladder.experiment import Experiment
    from multigrid.ladder.state import begin

    with joined(config.compute.device, config.parallel.strategy) as processes:
        experiment = Experiment(config, processes=processes)
        state = begin(experiment)
        if processes.is_first:
            print(overview(experiment, state), flush=True)
            with _logging():
                warn_of_memory(experiment)


def train(
    experiment: str | Path | Mapping[str, Any] | Config,
    *overrides: str,
    resume: bool = False,
    overwrite: bool = False,
    problem: PDE | None = None,
    loss: "Loss | None" = None,
    network: "NetworkFactory | None" = None,
    callbacks: "Sequence[Callback]" = (),
    metrics: "Mapping[str, Metric] | None" = None,
    optimizer: "OptimizerFactory | None" = None,
    with_direct: bool = False,
) -> "TrainedSurrogate":
    """Trains a ladder as ``multigrid run`` does, and loads it.

    Args:
        experiment: An experiment file, its content as a dictionary, or a configuration.
        overrides: Settings to replace, ``section.key=value``.
        resume: Continue an interrupted run.
        overwrite: Replace an earlier run.
        problem: A PDE of the user's own, instead of the section ``problem``. It is built anew from
            its parameters where it is needed, so it must be what its constructor makes of them.
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
    from multigrid.ladder.experiment import Extensions
    from multigrid.surrogate import load

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


def train_ladder(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    extensions: "Extensions | None" = None,
    with_direct: bool = False,
) -> RunFolder:
    """Trains the ladder of a configuration, tests it, draws the figures; returns the run's folder.

    With ``with_direct`` it then trains on the finest grid alone, with equal work, in ``direct``.

    Raises:
        UserError: If something about the experiment or its folder is wrong.
    """
    if with_direct and (config.schedule.cycle == "single" or len(config.levels) == 1):
        raise UserError("--with-direct: this experiment trains on the finest grid alone already")
    together = joined(config.compute.device, config.parallel.strategy)
    with ExitStack() as stack:
        stack.enter_context(default_float32())
        processes = stack.enter_context(together)
        if not processes.is_first:
            stack.enter_context(_level(logging.CRITICAL))  # the first one tells
        folder = _train_in_folder(config, resume, overwrite, extensions, processes)
        if not with_direct:
            return folder
        cycle = processes.from_first(lambda: read_saved(folder.config).schedule.cycle)
        if cycle == "single" and processes.is_first:
            with _logging(folder):
                log.warning("--with-direct: no ladder to compare with, as the cycle is 'single'")
        if cycle != "single":
            work = processes.from_first(lambda: RunRecord(folder).summary["work_units"])
            direct = direct_config(config, folder, work)
            _train_in_folder(direct, resume, overwrite, extensions, processes)
            if processes.is_first:
                from multigrid.report import write_report
                from multigrid.report.comparison import compare

                with failures_explained(folder), _logging(folder):
                    write_report(folder.path, config.output.figures)  # now with both curves
                    log.info("\n%s", compare([folder.direct, folder.path]))
    return folder


def direct_config(config: Config, folder: RunFolder, work_units: float) -> Config:
    """Returns the training on the finest grid alone that takes a ladder's work, rounded up.

    It starts from nothing, so its learning rate is that of the coarsest level.
    """
    raw, rate = config.model_dump(), config.schedule.learning_rate
    raw["schedule"] |= {
        "cycle": "single",
        "epochs": max(1, math.ceil(work_units - 1e-6)),
        "budget": None,
        "learning_rate": rate[0] if isinstance(rate, list) else rate,
        "patience": None,
    }
    raw["checkpoints"] |= {"load": None, "save": None}
    raw["output"] |= {"folder": str(folder.path)}
    return parse_config({**raw, "name": folder.direct.name, "transfer": {}}, config.name)


def _train_in_folder(
    config: Config,
    resume: bool,
    overwrite: bool,
    extensions: "Extensions | None",
    processes: Processes,
) -> RunFolder:
    """Trains and tests while no other process may write into the run's folder."""
    from multigrid.ladder.cost import warn_of_memory
    from multigrid.ladder.experiment import Experiment
    from multigrid.ladder.ladder import LadderRun
    from multigrid.ladder.state import begin
    from multigrid.report import write_report

    folder = RunFolder(Path(config.output.folder) / config.name)
    processes.require_equal(_start_facts(config, resume, overwrite))
    with failures_explained(folder), folder.lock:
        resume = processes.from_first(lambda: _occupy(config, folder, resume, overwrite))
        experiment = Experiment(config, extensions, processes)
        processes.require_equal({"data": experiment.source.fingerprint})
        if resume:
            folder.check(experiment.config, resume=True, overwrite=False)
        state = None if resume else begin(experiment)
        ladder = LadderRun(experiment, folder)
        if not processes.is_first:
            ladder.train(state)
            return folder
        if not resume:
            folder.claim(experiment.config, overwrite)
        folder.tidy()
        with _logging(folder):
            warn_of_memory(experiment)
            summary = ladder.train(state)
            write_report(folder.path, config.output.figures)
            log.info("\n%s", describe(summary))
            log.info("results in %s", folder.path)
    return folder


def _occupy(config: Config, folder: RunFolder, resume: bool, overwrite: bool) -> bool:
    """Checks that a run may write where it wants, and locks its folder if that is there.

    Returns whether there is a run to go on with.
    """
    if resume and folder.holds_run:
        from multigrid.ladder.resume import restore_config

        restore_config(folder, config)
    folder.check(config, resume, overwrite)
    resume = resume and folder.config.exists()
    if config.checkpoints.save is not None:
        from multigrid.training.checkpoint import check_writable

        check_writable(Path(config.checkpoints.save), replace=overwrite or resume)
    if folder.path.is_dir():
        folder.lock.acquire()
    return resume


def _start_facts(config: Config, resume: bool, overwrite: bool) -> dict[str, str]:
    """Returns what must be the same in all processes; folders may be each machine's own."""
    from multigrid.hardware import code_version

    facts = {"code": code_version(), "--resume": str(resume), "--overwrite": str(overwrite)}
    for key, value in flatten(config.model_dump()):
        if key not in ("data.folder", "output.folder") and " at 0x" not in str(value):
            facts[key] = str(value)
    return facts


@contextmanager
def failures_explained(folder: RunFolder) -> Iterator[None]:
    """Turns a full disk or lack of memory during a run into one sentence."""
    try:
        yield
    except ConnectionError:  # of a callback of the user's
        raise
    except OSError as error:
        raise UserError(f"{error.filename or folder.path}: {error.strerror or error}") from None
    except (RuntimeError, MemoryError) as error:
        # torch's errors are RuntimeErrors, that of the GPU with a name of its own
        lacks = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not lacks and "DefaultCPUAllocator" not in str(error):
            raise
        raise UserError(
            "out of memory; a larger parallel.accumulate or parallel.checkpoint_activations=true "
            "need less, also with --resume, a smaller schedule.batch_size or model.width and "
            "data.memory=stream for a new run"
        ) from None


@contextmanager
def _logging(folder: RunFolder | None = None) -> Iterator[None]:
    """Logs to the screen and, with times, to the run's log file within the context.

    Handlers of the caller's get every record, too; what one of them writes to the screen does not
    stand there twice.
    """
    screen = _LogHandler(sys.stdout)
    screen.addFilter(lambda record: not _is_on_screen(record))
    with ExitStack() as stack:
        stack.enter_context(_level(logging.INFO))
        stack.enter_context(_handler(screen))
        if folder is not None:
            file = stack.enter_context(folder.log.open("a", encoding="utf-8"))
            timed = _LogHandler(file)
            timed.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            stack.enter_context(_handler(timed))
        yield


@contextmanager
def _level(level: int) -> Iterator[None]:
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _handler(handler: logging.Handler) -> Iterator[None]:
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _is_on_screen(record: logging.LogRecord) -> bool:
    """Whether a handler of the caller's writes a record to the screen."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        for handler in logger.handlers:
            on_screen = getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
            if isinstance(handler, _LogHandler) or not on_screen:
                continue
            if record.levelno >= handler.level and handler.filter(record):
                return True
        logger = logger.parent if logger.propagate else None
    return False


class _LogHandler(logging.StreamHandler):
    """Escapes control characters, which names from files may have.

    Lines that cannot be written are lost: the disk is full, which the run reports when it saves, or
    the reader of the screen has left.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns a record as text."""
        return printable(super().format(record), keep="\n\t")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Does nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status, as :meth:`Command.main` does."""
    return run.main(arguments, "python -m multigrid.run")


if __name__ == "__main__":
    sys.exit(main())

"""Callbacks: what is told of a run while it trains, such as a progress bar or a tracker.

A callback is a :class:`Callback` with some of its methods replaced; ``multigrid.train`` takes them
as ``callbacks=[...]``, and experiment files name registered ones.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from multigrid.errors import UserError, brief
from multigrid.grid import Grid
from multigrid.registry import CALLBACKS, place_of, register_callback
from multigrid.schedule import Stage
from multigrid.training.progress import EpochRecord, Progress

log = logging.getLogger(__name__)


class Training(Protocol):
    """What callbacks may rely on of the trainer of a level.

    ``num_steps`` are those of an epoch; ``should_stop`` ends the level after the epoch.
    """

    stage: Stage
    progress: Progress
    num_steps: int
    should_stop: bool


class Callback:
    """Is told of the progress of a run; every method does nothing by itself.

    Attributes of ``run`` that callbacks may rely on: ``config``, ``folder.path`` and ``rows``, one
    row of ``metrics.csv`` for each epoch so far.
    """

    def on_start(self, run: Any) -> None:
        """Called once, before the first level."""

    def on_level_start(self, run: Any, trainer: Training) -> None:
        """Called on entering a level, or on resuming within it."""

    def on_step(self, trainer: Training) -> None:
        """Called after every optimizer step."""

    def on_epoch(self, trainer: Training, record: EpochRecord) -> None:
        """Called after every epoch, validation included."""

    def on_level_end(self, run: Any, trainer: Training) -> None:
        """Called when a level is finished."""

    def on_end(self, run: Any, summary: dict[str, Any] | None) -> None:
        """Called once at the end of a run whose ``on_start`` has succeeded.

        ``summary`` is the content of ``summary.json``, or None if the run has failed.
        """


class Callbacks:
    """Tells all callbacks of a run, in their order; of the end only those that have started.

    What fails in one of them at the end does not hide why the run has failed. ``run`` is None for
    a training by itself.
    """

    def __init__(self, callbacks: Sequence[Callback] = (), run: Any = None) -> None:
        self.callbacks = callbacks
        self.run = run
        self._started: list[Callback] = []

    def start(self) -> None:
        """Tells that the run starts."""
        for callback in self.callbacks:
            callback.on_start(self.run)
            self._started.append(callback)

    def level_start(self, trainer: Training) -> None:
        """Tells that a level starts, or is resumed."""
        for callback in self.callbacks:
            callback.on_level_start(self.run, trainer)

    def step(self, trainer: Training) -> None:
        """Tells that a step is done."""
        for callback in self.callbacks:
            callback.on_step(trainer)

    def epoch(self, trainer: Training, record: EpochRecord) -> None:
        """Tells what an epoch gave."""
        for callback in self.callbacks:
            callback.on_epoch(trainer, record)

    def level_end(self, trainer: Training) -> None:
        """Tells that a level is finished."""
        for callback in self.callbacks:
            callback.on_level_end(self.run, trainer)

    def end(self, summary: dict[str, Any] | None) -> None:
        """Tells that the run is over, and raises what failed in one of them if the run has not."""
        failures: list[Exception] = []
        for callback in self._started:
            try:
                callback.on_end(self.run, summary)
            except Exception as error:
                failures.append(error)
                log.warning("%s failed at the end: %s", place_of(callback), brief(error))
        if failures and summary is not None:
            raise failures[0]


class EarlyStopping(Callback):
    """Ends a level after ``patience`` epochs without improvement."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_level_start(self, run: Any, trainer: Training) -> None:
        """Stops at once where a resumed level has waited long enough."""
        if trainer.progress.epoch - trainer.progress.best_epoch >= self.patience:
            trainer.should_stop = True

    def on_epoch(self, trainer: Training, record: EpochRecord) -> None:
        """Checks what the epoch gave."""
        self.on_level_start(None, trainer)


class ProgressBar(Callback):
    """Shows the progress of a level: a bar on a terminal or in a notebook, plain lines elsewhere.

    The time left for all levels is at the pace of the present one, and so too long at first: a unit
    of work takes longer on coarse grids. ``grids`` are those of the levels.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        self.grids = grids
        self.shown = sys.stderr.isatty() or "ipykernel" in sys.modules
        self.bar: tqdm | None = None

    def on_level_start(self, run: Any, trainer: Training) -> None:
        """Starts to measure the pace."""
        stage, costs = trainer.stage, run.stage_costs
        self.head = f"[level {stage.level}/{len(self.grids) - 1} | {self.grids[stage.level]}]"
        self.total = stage.epochs * trainer.num_steps
        cost, later = costs[stage.index], sum(costs[stage.index + 1 :])
        self.later = later / cost * self.total if cost else 0.0
        self.begun, self.started = self._steps(trainer), time.perf_counter()

    def on_step(self, trainer: Training) -> None:
        """Moves the bar."""
        if not self.shown:
            return
        steps = self._steps(trainer)
        if self.bar is None:
            self.bar = tqdm(
                desc=f"{self.head} epoch {trainer.progress.epoch + 1}/{trainer.stage.epochs}",
                total=self.total,
                initial=steps - 1,
                bar_format="{desc} |{bar}| {n_fmt}/{total_fmt} steps{postfix}",
                leave=False,
            )
        level, run = self.time_left(steps)
        self.bar.set_postfix_str(f"{level} left, all levels {run}", refresh=False)
        self.bar.update(steps - self.bar.n)

    def on_epoch(self, trainer: Training, record: EpochRecord) -> None:
        """Logs what the epoch gave."""
        self._close()
        level, run = self.time_left(self._steps(trainer))
        log.info(
            f"{self.head} epoch {record.epoch}/{trainer.stage.epochs}  "
            f"train_loss={record.train_loss:.4g}  val_rel_l2={record.val_rel_l2:.4g}  "
            f"lr={record.learning_rate:.1e}  |g|={record.gradient_norm:.2g}  "
            f"{record.seconds:.1f}s  (data {record.data_fraction:.0%})  "
            f"left={level}  total_left={run}"
        )

    def on_end(self, run: Any, summary: dict[str, Any] | None) -> None:
        """Removes the bar."""
        self._close()

    def time_left(self, steps: int) -> tuple[str, str]:
        """Returns the time left after some steps of a level, for it and for all levels."""
        pace = (time.perf_counter() - self.started) / max(1, steps - self.begun)
        level = pace * (self.total - steps)
        return tqdm.format_interval(level), tqdm.format_interval(level + pace * self.later)

    def _steps(self, trainer: Training) -> int:
        return trainer.progress.epoch * trainer.num_steps + trainer.progress.step

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class TensorBoard(Callback):
    """Writes each row of the metrics as TensorBoard events, nothing before; steps are rows."""

    def __init__(self, folder: Path) -> None:
        self.writer: Any = None
        module = _require("torch.utils.tensorboard", "output.tensorboard")
        self.open = partial(module.SummaryWriter, str(folder))

    def on_level_start(self, run: Any, trainer: Training) -> None:
        """Hides whatever an interrupted run wrote beyond its last checkpoint."""
        if self.writer is None:
            self.run, self.num_written = run, len(run.rows) - (trainer.progress.epoch == 0)
            self.writer = self.open(purge_step=self.num_written)
        self.on_epoch(trainer)

    def on_epoch(self, trainer: Training, record: EpochRecord | None = None) -> None:
        """Writes the new rows."""
        for step in range(self.num_written, len(self.run.rows)):
            for name, value in epoch_metrics(self.run.rows[step]).items():
                self.writer.add_scalar(name, value, step)
        self.num_written = len(self.run.rows)
        self.writer.flush()

    def on_end(self, run: Any, summary: dict[str, Any] | None) -> None:
        """Closes the file of events."""
        if self.writer is not None:
            self.writer.close()


@register_callback("wandb")
class WandB(Callback):
    """Logs a run to Weights & Biases; the options are those of ``wandb.init``, as the project."""

    def __init__(self, **options: Any) -> None:
        self.wandb = _require("wandb")
        self.options = options

    def on_start(self, run: Any) -> None:
        """Opens a run with the experiment's name and configuration."""
        self.run = run
        config = run.config.model_dump()
        # a run that is resumed goes on in its own, which place and time of its start tell
        begun = [event.get("time") for event in run.folder.journal.read()[:1]]
        known = f"{run.folder.path.resolve()} {begun}"
        same = {"id": sha256(known.encode()).hexdigest()[:16], "resume": "allow"}
        options = {"name": run.config.name, "config": config, **same, **self.options}
        self.tracker = self.wandb.init(**options)

    def on_epoch(self, trainer: Training, record: EpochRecord) -> None:
        """Logs the new row."""
        self.tracker.log(epoch_metrics(self.run.rows[-1]), step=len(self.run.rows) - 1)

    def on_end(self, run: Any, summary: dict[str, Any] | None) -> None:
        """Logs the test errors and closes the run."""
        self.tracker.summary.update((summary or {}).get("test", {}))
        self.tracker.finish(exit_code=0 if summary else 1)


@register_callback("mlflow")
class MLflow(Callback):
    """Logs a run to MLflow; the options are those of ``mlflow.start_run``."""

    def __init__(self, **options: Any) -> None:
        self.mlflow = _require("mlflow")
        self.options = options

    def on_start(self, run: Any) -> None:
        """Opens a run with the experiment's name and configuration."""
        self.run = run
        self.mlflow.start_run(**{"run_name": run.config.name, **self.options})
        self.mlflow.log_dict(run.config.model_dump(), "config.yaml")

    def on_epoch(self, trainer: Training, record: EpochRecord) -> None:
        """Logs the new row."""
        self.mlflow.log_metrics(epoch_metrics(self.run.rows[-1]), step=len(self.run.rows) - 1)

    def on_end(self, run: Any, summary: dict[str, Any] | None) -> None:
        """Logs the test errors and closes the run."""
        errors = (summary or {}).get("test", {})
        self.mlflow.log_metrics({f"test_{name}": value for name, value in errors.items()})
        self.mlflow.end_run("FINISHED" if summary else "FAILED")


def build_callbacks(entries: Sequence[str | Mapping[str, Mapping[str, Any]]]) -> list[Callback]:
    """Returns registered callbacks, each given as a name or as a mapping from it to its options."""
    callbacks: list[Callback] = []
    for entry in entries:
        for name, options in ({entry: {}} if isinstance(entry, str) else entry).items():
            callbacks.append(CALLBACKS.configured(name, options, "output.callbacks")())
    require_callbacks(callbacks, "output.callbacks")
    return callbacks


def require_callbacks(callbacks: Sequence[object], key: str) -> None:
    """Checks that all are callbacks."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UserError(
                f"{key}: {place_of(callback)} is no callback; derive its class from "
                "multigrid.Callback"
            )


def epoch_metrics(row: Any) -> dict[str, float]:
    """Returns what experiment trackers show of a row of ``metrics.csv``, by name."""
    names = ("val_rel_l2", "val_finest_rel_l2", "train_loss", "learning_rate", "gradient_norm")
    metrics = {f"{name}/level_{row.level}": getattr(row, name) for name in names}
    metrics |= {f"cost/{name}": getattr(row, name) for name in ("work_units", "seconds")}
    return {name: value for name, value in metrics.items() if value is not None}


def _require(module: str, key: str = "output.callbacks") -> Any:
    try:
        return import_module(module)
    except ImportError:
        name = module.rpartition(".")[2]
        raise UserError(
            f"{key}: the package '{name}' is not installed; `pip install {name}`"
        ) from None

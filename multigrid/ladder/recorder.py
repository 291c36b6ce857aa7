"""What a run has done so far, kept on disk so that it can continue."""

import logging
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from multigrid.config import Config, read_saved, write_saved
from multigrid.errors import UserError
from multigrid.files import rename, write_json
from multigrid.ladder.data import RunData
from multigrid.ladder.initialization import Start
from multigrid.models.cost import count_named, count_parameters
from multigrid.models.transfer import COPIED
from multigrid.records.history import Row, outcome, write_history
from multigrid.records.run_folder import RunFolder
from multigrid.schedule import Stage
from multigrid.tables import counted
from multigrid.training.callbacks import Callback, Training
from multigrid.training.checkpoint import (
    ABOUT,
    DamagedError,
    check_place,
    load_checkpoint,
    save_checkpoint,
)
from multigrid.training.progress import EpochRecord
from multigrid.training.trainer import Trainer

log = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pt", "last.previous.pt", "best.pt"
IN_BEST = ("stage", *ABOUT, "data_fingerprint", "environment")
KEYS = {"rows", "finished", "best", "network", "trainer", "start"}


class Recorder(Callback):
    """Records the metrics of every epoch, the summaries of finished stages, and checkpoints.

    Attributes:
        rows: One row for each epoch so far.
        finished: One summary for each finished stage.
        unfinished: The checkpoint of the next stage, where a resumed run goes on within it.
        best: Best state of the latest finished stage on a level, as far as stages to come need it
            and of the last one in any case. A stage that was lost counts only where there is none.
        transfers: The latest transfer report of each level, as in its ``transfer.json``.
        saving_seconds: Time spent on saving checkpoints.
    """

    trainer: Trainer
    start_of_level: Start

    def __init__(self, data: RunData, folder: RunFolder) -> None:
        self.data = data
        self.experiment = experiment = data.experiment
        self.folder = folder
        self.processes = experiment.processes
        self.rows: list[Row] = []
        self.finished: list[dict[str, Any]] = []
        self.unfinished: dict[str, Any] | None = None
        self.best: dict[int, dict[str, Any]] = {}
        self.transfers: dict[int, dict[str, Any]] = {}
        self.saving_seconds = 0.0
        self._saved_best: dict[str, Any] | None = None
        self._steps_since_saving = 0
        self._saved_at = time.monotonic()

    def level_folder(self, level: int) -> Path:
        """Returns the folder of a level."""
        return self.folder.level(level, self.experiment.hierarchy.levels[level])

    def states(self, stage: Stage) -> list[dict[str, Any]]:
        """Returns the best states that a stage starts from; the latest stage's counts most."""
        visited = [done["level"] for done in self.finished]
        levels = [*({stage.level} & {*visited}), *visited[-1:]]
        if stage.source is not None:
            levels = [visited[stage.source]]
        return [self.best[level] for level in levels]

    # a level

    def on_level_start(self, run: Any, trainer: Training) -> None:
        """Begins to record a stage, or goes on with one."""
        assert isinstance(trainer, Trainer)
        self.trainer, self._saved_best = trainer, None
        self._steps_since_saving, self._saved_at = 0, time.monotonic()
        self.transfers[trainer.stage.level] = self.start_of_level.report.to_json()
        if trainer.at_start is not None:
            self._append(trainer.at_start)
            self._log_start(trainer.at_start)
        self._write_transfers()

    def _log_start(self, record: EpochRecord) -> None:
        """Logs what a stage does, what was transferred, and the errors on entering."""
        stage, start = self.trainer.stage, self.start_of_level
        grids = self.experiment.hierarchy.levels
        head = f"[level {stage.level}/{len(grids) - 1} | {grids[stage.level]}]"
        reason = f"  ({stage.reason})" if stage.reason else ""
        what = f"batch {stage.batch_size}, rate {stage.learning_rate:.1e}{reason}"
        log.info("%s stage %d: %s, %s", head, stage.index, counted(stage.epochs, "epoch"), what)
        if start.report.keys(*COPIED):
            notices = start.report.notices(loaded=bool(self.experiment.loaded))
            log.info("%s", "\n".join([start.report.totals(), *notices]))
        errors = record.val_rel_l2, record.val_finest_rel_l2
        log.info("%s on entering  val_rel_l2=%.4g  on the finest grid %.4g", head, *errors)

    def on_step(self, trainer: Training) -> None:
        """Saves a checkpoint if one is due."""
        self._steps_since_saving += 1
        steps = self.experiment.config.checkpoints.steps
        due = steps is not None and self._steps_since_saving >= steps
        if self.processes.any(due or self._is_late()):
            self.save()

    def on_epoch(self, trainer: Training, record: EpochRecord) -> None:
        """Adds a row to the metrics, and saves a checkpoint if one is due."""
        self._append(record)
        due = record.epoch % self.experiment.config.checkpoints.interval == 0
        if self.processes.any(due or self._is_late()):
            self.save()

    def on_level_end(self, run: Any, trainer: Training) -> None:
        """Adds the stage to those finished, and saves its last checkpoint and its best one."""
        level = trainer.stage.level
        self.finished.append(self._summary())
        self.best = {k: state for k, state in self.best.items() if k in self._later_levels()}
        self._keep(level, to_cpu(self.trainer.best))
        self.save()

    def _keep(self, level: int, state: dict[str, Any]) -> None:
        """Keeps the best state of a stage that has just finished, unless the stage was lost."""
        if level not in self.best or not self.experiment.plan.was_lost(self.finished):
            self.best[level] = state

    # checkpoints

    def save(self) -> None:
        """Saves all to continue from, in all processes alike, and then the best state for users."""
        started = time.perf_counter()
        trainer, experiment = self.trainer, self.experiment
        network, state = trainer.weights(), trainer.state_dict()
        if self.processes.is_first:
            level, later = trainer.stage.level, self._later_levels()
            earlier = {k: state for k, state in self.best.items() if k in later}
            plan, is_over = experiment.plan, trainer.stage.index < len(self.finished)
            if not plan.is_automatic or (is_over and not plan.was_lost(self.finished)):
                earlier.pop(level, None)  # not needed, or the same as "best"
            checkpoint = {
                "stage": trainer.stage.index,
                **experiment.about(level, trainer.surrogate.scaling),
                "data_fingerprint": experiment.source.fingerprint,
                "environment": experiment.environment,
                "stages": [asdict(stage) for stage in experiment.plan.stages],
                "epoch_costs": experiment.plan.epoch_costs,
                "rows": [vars(row) for row in self.rows],
                "finished": self.finished,
                "loaded": experiment.loaded if later else {},
                "earlier_best": earlier,
                "saving_seconds": self.saving_seconds,
                "transfers": self.transfers,
                "start": {"slow": sorted(self.start_of_level.slow)},
                "network": network,
                "trainer": state,
                "best": trainer.best,
            }
            folder = self.level_folder(level)
            with self.processes.undisturbed:
                save_checkpoint(folder / LAST, checkpoint, folder / PREVIOUS)
                if self._saved_best is not trainer.best:
                    save_best(folder / BEST, checkpoint)
                    self._saved_best = trainer.best
            self.saving_seconds += time.perf_counter() - started
        self._steps_since_saving, self._saved_at = 0, time.monotonic()

    def restore(self) -> bool:
        """Goes on from the latest sound checkpoint of the run; returns False if there is none.

        A damaged checkpoint is named, put aside and left out; where none is left, and no result,
        the run starts from the beginning.
        """
        latest = self.processes.from_first(self._latest)
        if latest is None:
            damaged = any(self.folder.path.glob("level_*_*/*.damaged"))
            reason = "no sound checkpoint is left" if damaged else "nothing was saved yet"
            log.info("%s: starting from the beginning", reason)
            self.experiment.begin()
            return False
        self.experiment.resume(latest)
        self.rows = [Row(**row) for row in latest["rows"]]
        self.finished = latest["finished"]
        self.best = dict(latest["earlier_best"])
        self.saving_seconds = latest["saving_seconds"]
        self.transfers = latest["transfers"]
        if is_finished(latest):
            self._keep(latest["level"], latest["best"])
        else:
            self.unfinished = latest
        self._write_history()
        self._write_transfers()
        self._note_resumed(latest)
        return True

    def _note_resumed(self, latest: Mapping[str, Any]) -> None:
        """Writes down from where the run goes on, and what has changed since it stopped there."""
        _, stage, epoch, _, step = _place(latest)
        log.info("resuming after epoch %d, step %d of stage %d", epoch, step, stage)
        if not self.processes.is_first or self.folder.summary.exists():
            return  # if all is done, only the report is made again
        before, changed = latest["environment"], {}
        for key, now in self.experiment.environment.items():
            if (then := before.get(key, "unknown")) != now:
                changed[key] = [then, now]
                log.warning(
                    f"resumed with a different {key}: {then} before, {now} now; the result may "
                    "differ from that of an uninterrupted run"
                )
        place = {"stage": stage, "epoch": epoch, "step": step}
        self.folder.journal.note("resumed", **place, changed=changed)

    def _latest(self) -> dict[str, Any] | None:
        """Reads all checkpoints and returns the one that is furthest, or None.

        One of another run or level is refused, and stays as it is.
        """
        latest, folder = None, self.folder.path
        for path in [p for name in (LAST, PREVIOUS) for p in folder.glob(f"level_*_*/{name}")]:
            checkpoint = self._load(path)
            if checkpoint is None:
                continue
            check_place(path, checkpoint, self.experiment.config)
            if path.name == LAST and is_finished(checkpoint):
                repair_best(path.with_name(BEST), checkpoint)
            if latest is None or _place(checkpoint) > _place(latest):
                latest = checkpoint
        if latest is None and self.folder.results:
            raise self.folder.refusal("it has no sound last.pt")
        fingerprint = self.experiment.source.fingerprint
        if latest is not None and latest["data_fingerprint"] != fingerprint:
            raise UserError(
                f"{folder}: cannot be resumed, as the samples have changed since the run began; "
                "use --overwrite to start again"
            )
        return latest

    def _load(self, path: Path) -> dict[str, Any] | None:
        """Returns a checkpoint; puts it aside if it is damaged."""
        try:
            checkpoint = load_checkpoint(path)
            if not checkpoint.keys() >= KEYS:
                raise DamagedError(f"{path}: holds no state of a run")
        except DamagedError as problem:
            aside = path.with_name(path.name + ".damaged")
            log.warning(f"{problem}; it is put aside as {aside.name}, and the one before is used")
            self.folder.journal.note("damaged checkpoint", problem=str(problem))
            try:
                rename(path, aside)
            except OSError as error:
                raise UserError(f"{path}: cannot be put aside: {error.strerror}") from None
            return None
        if not checkpoint.keys() >= {"transfers", "stages"}:
            raise UserError(
                f"{path}: was written by an earlier version, whose runs cannot be resumed; "
                "use another name=..., or --overwrite to start again"
            )
        return checkpoint

    def _is_late(self) -> bool:
        minutes = self.experiment.config.checkpoints.minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _later_levels(self) -> Collection[int]:
        experiment = self.experiment
        if experiment.plan.is_automatic:
            return range(len(experiment.hierarchy.levels))
        return {s.level for s in experiment.plan.stages[self.trainer.stage.index + 1 :]}

    # rows and summaries

    def _append(self, record: EpochRecord) -> None:
        """Adds a row and writes the metrics file."""
        stage, progress = self.trainer.stage, self.trainer.progress
        earlier = (row for row in reversed(self.rows) if row.stage < stage.index)
        before = next(earlier, Row.zero())
        self.rows.append(
            Row(
                stage=stage.index,
                level=stage.level,
                grid=str(self.experiment.hierarchy.levels[stage.level]),
                epoch=record.epoch,
                train_loss=record.train_loss,
                val_rel_l2=record.val_rel_l2,
                val_finest_rel_l2=record.val_finest_rel_l2,
                learning_rate=record.learning_rate,
                gradient_norm=record.gradient_norm,
                seconds=before.seconds + progress.seconds,
                evaluation_seconds=before.evaluation_seconds + progress.evaluation_seconds,
                work_units=before.work_units + self._work_units(),
                flops=before.flops + progress.flops,
                val_by_field=";".join(map(str, record.val_by_field)),
            )
        )
        self._write_history()

    def _write_history(self) -> None:
        if self.processes.is_first:
            write_history(self.folder.metrics, self.rows, self.folder.identity)

    def _work_units(self) -> float:
        return self.trainer.progress.flops / self.experiment.plan.epoch_flops[-1]

    def _write_transfers(self) -> None:
        """Writes the transfer report of every level; a resume mends damaged ones so."""
        for level, report in self.transfers.items() if self.processes.is_first else ():
            path = self.level_folder(level) / "transfer.json"
            path.parent.mkdir(exist_ok=True)
            write_json(path, {"run": self.folder.identity, "level": level, **report})

    def _summary(self) -> dict[str, Any]:
        trainer, progress, stage = self.trainer, self.trainer.progress, self.trainer.stage
        network, report = trainer.surrogate.network, self.start_of_level.report
        parameters = count_parameters(network)
        transferred = count_named(network, report.keys(*COPIED))
        frozen = count_named(network, trainer.finetuning.frozen())
        rows = [row for row in self.rows if row.stage == stage.index]
        return {
            "stage": stage.index,
            "level": stage.level,
            "grid": list(self.experiment.hierarchy.levels[stage.level].shape),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "seconds": progress.seconds,
            "data_seconds": progress.data_seconds,
            "work_units": self._work_units(),
            "flops": progress.flops,
            "parameters": parameters,
            "transferred": transferred,
            "new": parameters - transferred,
            "trainable": parameters - frozen,
            "frozen": frozen,
            "interpolation_error": self.data.interpolation_error(stage.level),
            "rel_l2_at_start": rows[0].val_rel_l2,
            "rel_l2": progress.best,
            "finest_rel_l2": min(row.val_finest_rel_l2 for row in rows),
            "outcome": outcome([row.val_rel_l2 for row in rows]),
            "reason": stage.reason,
            "went_back": trainer.divergence.events,
            "part_size": trainer.part_size,
            "compiled": trainer.compiled is not None,
            "compile_seconds": progress.compile_seconds,
        }


def restore_config(folder: RunFolder, config: Config) -> None:
    """Rewrites a missing or damaged ``config.yaml`` from a checkpoint of the run, if there is one.

    So a resume never starts again, and never deletes, what its checkpoints hold.
    """
    try:
        read_saved(folder.config)
    except UserError as reason:
        for path in sorted(folder.path.glob("level_*_*/last*.pt")):
            try:
                checkpoint = load_checkpoint(path)
            except UserError:
                continue
            if checkpoint.keys() >= KEYS:
                check_place(path, checkpoint, config)
                write_saved(folder.config, checkpoint["config"])
                print(f"{reason}; restored from {path}", file=sys.stderr)
                return
        if not folder.config.exists():
            raise folder.refusal("it has neither config.yaml nor a sound last.pt") from None


def save_best(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes the best state in a run's checkpoint as a file of its own, for users."""
    about = {key: checkpoint[key] for key in IN_BEST if key in checkpoint}
    save_checkpoint(path, {**about, **checkpoint["best"]})


def repair_best(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Rewrites the best state if a kill or damage has left the file behind."""
    try:
        there = load_checkpoint(path)
        progress = checkpoint["best"]["trainer"]["progress"]
        if there["stage"] == checkpoint["stage"] and there["trainer"]["progress"] == progress:
            return
    except UserError as error:
        log.warning("%s; it is written again", error)
    save_best(path, checkpoint)


def is_finished(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was taken at the end of its stage."""
    return bool(checkpoint["stage"] < len(checkpoint["finished"]))


def to_cpu(state: Any) -> Any:
    """Returns nested containers with all tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    return state


def _place(checkpoint: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    """Returns where a run stood: finished stages, stage, epoch, divergences so far and step.

    A divergence starts the epoch again, so it counts for more than a step.
    """
    trainer = checkpoint["trainer"]
    progress, went_back = trainer["progress"], len(trainer["divergence"]["events"])
    epoch, step = progress["epoch"], len(progress["losses"])
    return len(checkpoint["finished"]), checkpoint["stage"], epoch, went_back, step

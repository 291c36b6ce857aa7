"""What a run has done so far, written down so that it can continue."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multigrid.files import write_json
from multigrid.ladder.data import RunData
from multigrid.ladder.state import RunState
from multigrid.models.cost import count_named, count_parameters
from multigrid.models.transfer import COPIED
from multigrid.records.history import Row, outcome, write_history
from multigrid.records.run_folder import RunFolder
from multigrid.tables import counted
from multigrid.training.callbacks import Callback, Training
from multigrid.training.checkpoint import ABOUT, save_checkpoint
from multigrid.training.progress import EpochRecord
from multigrid.training.trainer import Trainer

log = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pt", "last.previous.pt", "best.pt"
IN_BEST = ("stage", *ABOUT, "data_fingerprint", "environment")


class Recorder(Callback):
    """Records the metrics of every epoch, the summaries of finished stages, and checkpoints."""

    state: RunState
    trainer: Trainer

    def __init__(self, data: RunData, folder: RunFolder) -> None:
        self.data = data
        self.experiment = experiment = data.experiment
        self.folder = folder
        self.processes = experiment.processes
        self._saved_best: dict[str, Any] | None = None
        self._steps_since_saving = 0
        self._saved_at = time.monotonic()

    def level_folder(self, level: int) -> Path:
        """Returns the folder of a level."""
        return self.folder.level(level, self.experiment.hierarchy.levels[level])

    def on_start(self, run: Any) -> None:
        """Takes the state of the run, and mends files of one that is resumed."""
        self.state = run.state
        if self.state.rows:
            self._write_history()
            self._write_transfers()

    def on_level_start(self, run: Any, trainer: Training) -> None:
        """Begins to record a stage, or goes on with one."""
        assert isinstance(trainer, Trainer)
        self.trainer, self._saved_best = trainer, None
        self._steps_since_saving, self._saved_at = 0, time.monotonic()
        if trainer.at_start is not None:
            self._append(trainer.at_start)
            self._log_start(trainer.at_start)
        self._write_transfers()

    def _log_start(self, record: EpochRecord) -> None:
        """Logs what a stage does, what was transferred, and the errors on entering."""
        stage, grids = self.trainer.stage, self.experiment.hierarchy.levels
        head = f"[level {stage.level}/{len(grids) - 1} | {grids[stage.level]}]"
        reason = f"  ({stage.reason})" if stage.reason else ""
        what = f"batch {stage.batch_size}, rate {stage.learning_rate:.1e}{reason}"
        log.info("%s stage %d: %s, %s", head, stage.index, counted(stage.epochs, "epoch"), what)
        report = self.state.report(stage.level)
        if report.keys(*COPIED):
            notices = report.notices(loaded=bool(self.state.loaded))
            log.info("%s", "\n".join([report.totals(), *notices]))
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
        best = to_cpu(self.trainer.best)
        self.state.finish(self._summary(), best, self.experiment.plan)
        self.save()

    def save(self) -> None:
        """Saves all to continue from, in all processes alike, and then the best state for users."""
        started = time.perf_counter()
        trainer, stage, experiment = self.trainer, self.trainer.stage, self.experiment
        network, state = trainer.weights(), trainer.state_dict()
        if self.processes.is_first:
            checkpoint = {
                "stage": stage.index,
                **experiment.about(stage.level, trainer.surrogate.scaling),
                "data_fingerprint": experiment.source.fingerprint,
                "environment": experiment.environment,
                **self.state.checkpoint(stage, experiment.plan),
                "network": network,
                "trainer": state,
                "best": trainer.best,
            }
            folder = self.level_folder(stage.level)
            with self.processes.undisturbed:
                save_checkpoint(folder / LAST, checkpoint, folder / PREVIOUS)
                if self._saved_best is not trainer.best:
                    save_best(folder / BEST, checkpoint)
                    self._saved_best = trainer.best
            self.state.saving_seconds += time.perf_counter() - started
        self._steps_since_saving, self._saved_at = 0, time.monotonic()

    def _is_late(self) -> bool:
        minutes = self.experiment.config.checkpoints.minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    # rows and summaries

    def _append(self, record: EpochRecord) -> None:
        """Adds a row and writes the metrics file."""
        stage, progress = self.trainer.stage, self.trainer.progress
        earlier = (row for row in reversed(self.state.rows) if row.stage < stage.index)
        before = next(earlier, Row.zero())
        self.state.rows.append(
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
            write_history(self.folder.metrics, self.state.rows, self.folder.identity)

    def _work_units(self) -> float:
        return self.trainer.progress.flops / self.experiment.plan.epoch_flops[-1]

    def _write_transfers(self) -> None:
        """Writes the transfer report of every level; a resume mends damaged ones so."""
        for level, report in self.state.transfers.items() if self.processes.is_first else ():
            path = self.level_folder(level) / "transfer.json"
            path.parent.mkdir(exist_ok=True)
            write_json(path, {"run": self.folder.identity, "level": level, **report})

    def _summary(self) -> dict[str, Any]:
        trainer, progress, stage = self.trainer, self.trainer.progress, self.trainer.stage
        network, report = trainer.surrogate.network, self.state.report(stage.level)
        parameters = count_parameters(network)
        transferred = count_named(network, report.keys(*COPIED))
        frozen = count_named(network, trainer.finetuning.frozen())
        rows = [row for row in self.state.rows if row.stage == stage.index]
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


def save_best(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes the best state in a run's checkpoint as a file of its own, for users."""
    about = {key: checkpoint[key] for key in IN_BEST if key in checkpoint}
    save_checkpoint(path, {**about, **checkpoint["best"]})


def to_cpu(state: Any) -> Any:
    """Returns nested containers with all tensors on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    return state

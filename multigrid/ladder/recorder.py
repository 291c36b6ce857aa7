"""History, checkpoints and progress of one stage."""

import logging
import time
from typing import Any

from multigrid.files import write_json
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.initialization import Start
from multigrid.ladder.ledger import BEST, LAST, PREVIOUS, Ledger, save_best
from multigrid.ladder.progress import ProgressPrinter
from multigrid.models.cost import count_named, count_parameters
from multigrid.models.transfer import COPIED, partition
from multigrid.records.autosave import Autosave
from multigrid.records.environment import environment
from multigrid.records.history import Row, outcome
from multigrid.training.checkpoint import save_checkpoint
from multigrid.training.epoch import EpochRecord
from multigrid.training.trainer import Trainer

log = logging.getLogger(__name__)


class StageRecorder:
    """Keeps history, checkpoints and progress of one stage.

    Args:
        experiment: The experiment that the stage belongs to.
        ledger: The run's ledger.
        trainer: The stage's trainer.
        start: What its network started from.
        overhead: Seconds spent on restriction, transfer and set-up.
        interpolation_error: What prolonging the truth from the level to the next one costs, None
            on the last level.
    """

    def __init__(
        self,
        experiment: Experiment,
        ledger: Ledger,
        trainer: Trainer,
        start: Start,
        overhead: float,
        interpolation_error: float | None,
    ) -> None:
        self.experiment = experiment
        self.processes = experiment.processes
        self.ledger = ledger
        self.trainer = trainer
        self.stage = trainer.stage
        self.start = start
        self.overhead = overhead
        self.interpolation_error = interpolation_error
        self.rel_l2_at_start = float("nan")
        self.entered = False
        self.saved_best: dict[str, Any] | None = None
        later = experiment.stages[self.stage.index + 1 :]
        self.later_levels = {stage.level for stage in later}
        settings = experiment.config.checkpoints
        self.autosave = Autosave(settings.interval, settings.steps, settings.minutes)
        self.folder = ledger.level_folder(self.stage.level)
        self.printer = ProgressPrinter(
            self.stage,
            len(experiment.hierarchy.levels),
            str(trainer.train.grid),
            [experiment.work_units(stage.level, stage.epochs) for stage in experiment.stages],
            self.processes.is_first,
        )

    def enter(self) -> None:
        """Measures the surrogate before its first step and writes the transfer table."""
        log.info("%s", self.printer.banner())
        self._write_transfer()
        if self.start.report is not None:
            log.info("%s\n%s", self.start.report.totals(), self.start.report.table())
            for notice in self.start.report.notices():
                log.info("%s", notice)
        error, finest_error = self.trainer.measure_start()
        self.rel_l2_at_start = error
        self._append(0, error, finest_error)
        self.printer.entered(error, finest_error)
        self.entered = True

    def restore(self, payload: dict[str, Any]) -> None:
        """Continues from the checkpoint of this stage, which the network was filled from."""
        self._write_transfer()
        self.trainer.load_state_dict(payload["trainer"])
        self.trainer.best = payload["best"]
        self.overhead = payload["overhead"]
        self.rel_l2_at_start = payload["rel_l2_at_start"]
        self.entered = True

    def step(self, epoch: int, step: int, num_steps: int) -> None:
        """Moves the progress bar, and saves a checkpoint if one is due.

        Raises:
            Interrupted: If a signal has asked to stop.
        """
        self.printer.step(epoch, step, num_steps)
        if self.processes.agree(self.autosave.after_step()):
            self._save()

    def epoch(self, trainer: Trainer, record: EpochRecord) -> None:
        """Adds a row to the history, and saves a checkpoint if one is due."""
        self._append(
            record.epoch,
            record.val_rel_l2,
            record.val_finest_rel_l2,
            record.train_loss,
            record.learning_rate,
            record.gradient_norm,
        )
        self.printer.epoch(record)
        if self.processes.any(self.autosave.after_epoch(record.epoch)):
            self._save()

    def stop(self) -> None:
        """Saves what there is of an unfinished stage."""
        self.printer.close()
        if self.entered:
            self._save()

    def close(self) -> None:
        """Adds the stage to those finished and saves its last checkpoint and its best one."""
        self.printer.close()
        self.ledger.finish(self._summary(), self.trainer.best, self.later_levels)
        self._save()

    def _save(self) -> None:
        """Saves all that a continuation needs in one file, and then the best state for users.

        All processes put what is spread over them together, and the first one writes.
        """
        started = time.perf_counter()
        network, trainer = self.trainer.weights(), self.trainer.state_dict()
        if not self.processes.is_first:
            self.autosave.saved()
            return
        last = {
            "stage": self.stage.index,
            **self.experiment.about(self.stage.level, self.trainer.surrogate.scaling),
            "data_fingerprint": self.experiment.source.fingerprint,
            "environment": environment(self.experiment.device, self.processes.size),
            **self.ledger.state_dict(self.stage.level, self.later_levels),
            "network": network,
            "trainer": trainer,
            "best": self.trainer.best,
            "start": self.start.to_json(),
            "epochs": self.experiment.epochs,
            "overhead": self.overhead,
            "rel_l2_at_start": self.rel_l2_at_start,
        }
        with self.processes.undisturbed():
            save_checkpoint(self.folder / LAST, last, self.folder / PREVIOUS)
            if self.saved_best is not self.trainer.best:
                save_best(self.folder / BEST, last)
                self.saved_best = self.trainer.best
        self.autosave.saved()
        self.ledger.saving_seconds += time.perf_counter() - started

    def _write_transfer(self) -> None:
        if not self.processes.is_first:
            return
        network = self.trainer.surrogate.network
        report = self.start.report or partition({}, network.state_dict())
        write_json(self.folder / "transfer.json", report.to_json())

    def _append(
        self,
        epoch: int,
        error: float,
        finest_error: float,
        train_loss: float | None = None,
        learning_rate: float | None = None,
        gradient_norm: float | None = None,
    ) -> None:
        before = self.ledger.last_row_before(self.stage.index)
        progress = self.trainer.progress
        self.ledger.append(
            Row(
                stage=self.stage.index,
                level=self.stage.level,
                grid=str(self.trainer.train.grid),
                epoch=epoch,
                train_loss=train_loss,
                val_rel_l2=error,
                val_finest_rel_l2=finest_error,
                learning_rate=learning_rate,
                gradient_norm=gradient_norm,
                seconds=before.seconds + self.overhead + progress.seconds,
                evaluation_seconds=before.evaluation_seconds + progress.evaluation_seconds,
                work_units=before.work_units + self._work_units,
                flops=before.flops + progress.flops,
            )
        )

    @property
    def _work_units(self) -> float:
        return self.trainer.progress.flops / self.experiment.epoch_flops[-1]

    def _summary(self) -> dict[str, Any]:
        progress = self.trainer.progress
        network = self.trainer.surrogate.network
        parameters = count_parameters(network)
        copied = self.start.report.keys(*COPIED) if self.start.report else []
        transferred = count_named(network, copied)
        frozen = count_named(network, self.trainer.finetuning.frozen())
        return {
            "stage": self.stage.index,
            "level": self.stage.level,
            "grid": list(self.trainer.train.grid.shape),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "seconds": self.overhead + progress.seconds,
            "data_seconds": progress.data_seconds,
            "work_units": self._work_units,
            "flops": progress.flops,
            "parameters": parameters,
            "transferred": transferred,
            "new": parameters - transferred,
            "trainable": parameters - frozen,
            "frozen": frozen,
            "interpolation_error": self.interpolation_error,
            "rel_l2_at_start": self.rel_l2_at_start,
            "rel_l2": progress.best,
            "outcome": self._outcome(),
            "went_back": self.trainer.guard.faults,
            "part_size": self.trainer.memory.part_size,
            "compiled": self.trainer.compiled.active,
            "compile_seconds": progress.compile_seconds,
        }

    def _outcome(self) -> str:
        rows = [row for row in self.ledger.rows if row.stage == self.stage.index]
        return outcome([row.val_rel_l2 for row in rows])

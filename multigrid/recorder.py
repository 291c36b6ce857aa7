"""History, checkpoints and progress of one stage."""

import logging
from typing import Any

from multigrid.checkpoint import load_checkpoint, save_checkpoint
from multigrid.experiment import Experiment
from multigrid.history import Row
from multigrid.ledger import Ledger
from multigrid.models.cost import count_named, count_parameters
from multigrid.progress import ProgressPrinter
from multigrid.trainer import EpochRecord, Trainer
from multigrid.transfer import COPIED, TransferReport, load_strictly

log = logging.getLogger(__name__)


class StageRecorder:
    """Keeps history, checkpoints and progress of one stage.

    Args:
        experiment: The experiment that the stage belongs to.
        ledger: The run's ledger.
        trainer: The stage's trainer.
        report: The transfer it started from, or None.
        overhead: Seconds spent on restriction, transfer and set-up.
        interpolation_error: What prolonging the truth from the level to the next one costs, None
            on the last level.
    """

    def __init__(
        self,
        experiment: Experiment,
        ledger: Ledger,
        trainer: Trainer,
        report: TransferReport | None,
        overhead: float,
        interpolation_error: float | None,
    ) -> None:
        self.experiment = experiment
        self.ledger = ledger
        self.trainer = trainer
        self.stage = trainer.stage
        self.report = report
        self.overhead = overhead
        self.interpolation_error = interpolation_error
        self.rel_l2_at_start = float("nan")
        self.best: dict[str, Any] = {}
        self.folder = ledger.level_folder(self.stage.level)
        self.printer = ProgressPrinter(
            self.stage,
            len(experiment.hierarchy.levels),
            str(trainer.train.grid),
            [experiment.work_units(stage.level, stage.epochs) for stage in experiment.stages],
        )

    def enter(self) -> None:
        """Measures the surrogate before its first step and writes the transfer table."""
        log.info("%s", self.printer.banner())
        if self.report is not None:
            log.info("%s\n%s", self.report.totals(), self.report.table())
            for notice in self.report.notices():
                log.info("%s", notice)
        error, finest_error = self.trainer.measure_start()
        self.rel_l2_at_start = error
        self._keep_best()
        self._append(0, error, finest_error)
        self.printer.entered(error, finest_error)

    def restore(self, payload: dict[str, Any]) -> None:
        """Continues from the checkpoint of this stage."""
        load_strictly(payload["network"], self.trainer.surrogate.network, self.folder / "last.pt")
        self.trainer.load_state_dict(payload["trainer"])
        self.overhead = payload["overhead"]
        self.rel_l2_at_start = payload["rel_l2_at_start"]
        self.best = load_checkpoint(self.folder / "best.pt")

    def step(self, epoch: int, step: int, num_steps: int) -> None:
        """Moves the progress bar."""
        self.printer.step(epoch, step, num_steps)

    def epoch(self, trainer: Trainer, record: EpochRecord) -> None:
        """Adds a row to the history, and saves checkpoints every given number of epochs."""
        if record.improved:
            self._keep_best()
        self._append(
            record.epoch,
            record.val_rel_l2,
            record.val_finest_rel_l2,
            record.train_loss,
            record.learning_rate,
            record.gradient_norm,
        )
        self.printer.epoch(record)
        if record.epoch % self.experiment.config.checkpoints.interval == 0:
            self._save()

    def close(self) -> None:
        """Adds the stage to those finished and saves the last checkpoints."""
        self.printer.close()
        self.ledger.finished.append(self._summary())
        self._save()

    def _keep_best(self) -> None:
        network = self.trainer.surrogate.network
        state = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
        trainer = self.trainer.state_dict()
        trainer["optimizer"] = {
            key: {name: tensor.clone() for name, tensor in entry.items()}
            for key, entry in trainer["optimizer"].items()
        }
        self.best = {"network": state, "trainer": trainer}

    def _save(self) -> None:
        shared = {
            "stage": self.stage.index,
            "level": self.stage.level,
            "grid": list(self.trainer.train.grid.shape),
            "config": self.experiment.config.model_dump(),
            "fields": {
                "input": list(self.experiment.problem.input_names),
                "output": list(self.experiment.problem.output_names),
            },
            "scaling": self.trainer.surrogate.scaling.to_dict(),
            "data_fingerprint": self.experiment.source.fingerprint,
        }
        save_checkpoint(self.folder / "best.pt", {**shared, **self.best})
        last = {
            **shared,
            **self.ledger.state_dict(),
            "network": self.trainer.surrogate.network.state_dict(),
            "trainer": self.trainer.state_dict(),
            "overhead": self.overhead,
            "rel_l2_at_start": self.rel_l2_at_start,
        }
        save_checkpoint(self.folder / "last.pt", last)

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
        copied = self.report.keys(*COPIED) if self.report else []
        transferred = count_named(network, copied)
        frozen = count_named(network, self.trainer.regime.frozen())
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
        }

"""Nested iteration: trains level after level, each starting from the one before."""

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from multigrid import signals
from multigrid.data.streaming import TrainingSamples
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.ladder.board import Board
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.initialization import Start
from multigrid.ladder.ledger import BEST, LAST, Ledger, is_finished
from multigrid.ladder.recorder import StageRecorder
from multigrid.ladder.run_data import RunData
from multigrid.ladder.tested import TestResult
from multigrid.models.scaling import Surrogate
from multigrid.models.transfer import load_strictly
from multigrid.records.environment import changes, environment
from multigrid.records.run_folder import RunFolder
from multigrid.schedule import Stage
from multigrid.signals import Interrupted
from multigrid.tables import si
from multigrid.training.checkpoint import load_checkpoint
from multigrid.training.evaluation import LevelValidator
from multigrid.training.featurization import FeaturizedSamples, FeaturizedSurrogate, split
from multigrid.training.losses import build_loss
from multigrid.training.trainer import DivergedError, Trainer
from multigrid.training.weight_files import save_weights

log = logging.getLogger(__name__)


class LadderRun:
    """One run of an experiment: its data, its history and the stages it has finished.

    Args:
        experiment: What to run.
        folder: Where the results go.

    Attributes:
        ledger: What it has done so far.
        data: Its samples, once they are loaded.
        tested: What the result gives on the test samples, once the run is over; known to the first
            process only.
    """

    data: RunData
    tested: TestResult

    def __init__(self, experiment: Experiment, folder: RunFolder) -> None:
        self.experiment = experiment
        self.folder = folder
        self.processes = experiment.processes
        drawn = experiment.config.output.tensorboard and self.processes.is_first
        board = Board(folder.tensorboard) if drawn else None
        levels = experiment.hierarchy.levels
        self.ledger = Ledger(folder, levels, board, writes=self.processes.is_first)

    def run(self, resume: bool = False) -> None:
        """Trains all stages and tests the result; the data must have been loaded.

        Args:
            resume: Continue from the last checkpoints in the folder.
        """
        if self.processes.is_first:
            self.folder.tidy()
        fingerprint = self.experiment.source.fingerprint
        latest = self.ledger.restore(fingerprint, self.processes) if resume else None
        if latest is None:
            if resume:
                self.experiment.begin()
            self.ledger.loaded = self.experiment.loaded
        else:
            self.experiment.set_epochs(latest["epochs"])
        log.info("%s\n%s", self.experiment.describe(), self.data.line)
        self._note_start(latest)
        unfinished = None if latest is None or is_finished(latest) else latest
        try:
            for stage in self.experiment.stages[len(self.ledger.finished) :]:
                self._run_stage(stage, unfinished)
                unfinished = None
            if self.processes.is_first:
                self.tested = self._test()
        except (UserError, Interrupted, RuntimeError, MemoryError) as reason:
            self._note_end(reason)
            raise

    def load(self) -> None:
        """Generates or reads the samples of all levels; writes nothing to the run's folder.

        Raises:
            UserError: If they cannot be had.
        """
        self.data = RunData(self.experiment)

    def _run_stage(self, stage: Stage, unfinished: dict[str, Any] | None) -> None:
        """Builds the level's network, fills it, trains it and saves it."""
        error = self.data.interpolation_error(stage.level)
        started = time.perf_counter()
        initializer = self.experiment.initializer
        if unfinished is None:
            start = initializer.start(self.ledger, stage)
        else:
            path = self.ledger.level_folder(stage.level) / LAST
            start = initializer.resume(stage, unfinished, path)
        trainer = self._trainer(stage, start, self.data.train[stage.level], error)
        overhead = time.perf_counter() - started
        if all(done["level"] != stage.level for done in self.ledger.finished):
            overhead += self.data.restriction_seconds[stage.level]
        recorder = StageRecorder(self.experiment, self.ledger, trainer, start, overhead, error)
        with signals.deferred(agreeing=self.processes.size > 1):
            try:
                if unfinished is None:
                    recorder.enter()
                else:
                    recorder.restore(unfinished)
                trainer.fit(recorder)
                recorder.close()
            except DivergedError:
                raise
            except Interrupted:
                recorder.stop()
                self.processes.total(0)  # nobody ends before the first one has saved
                raise
            except (UserError, RuntimeError, MemoryError):
                # a file has vanished, the disk is full, the memory too small, a process gone: save
                # what can be without the others
                if not self.processes.shards:
                    with suppress(UserError):
                        recorder.stop()
                raise

    def _note_start(self, latest: dict[str, Any] | None) -> None:
        """Writes down from where the run goes on, and what has changed since it stopped there."""
        if not self.processes.is_first:
            return
        journal, owner = self.folder.journal, self.folder.lock.taken_over
        if owner is not None:
            who = f"process {owner.get('pid')} on {owner.get('host')}"
            log.warning("took over the lock of %s, which no longer runs", who)
        if self.folder.summary.exists():
            return  # only the report is made again
        now = environment(self.experiment.device, self.processes.size)
        if latest is None:
            journal.note("started", **now)
            return
        changed = changes(latest["environment"], now)
        trainer = latest["trainer"]
        place = {"epoch": trainer["progress"]["epoch"], "step": len(trainer["sums"]["losses"])}
        journal.note("resumed", stage=latest["stage"], **place, changed=changed)
        for key, (before, after) in changed.items():
            log.warning(
                "resumed with a different %s: %s before, %s now; the result may differ from that "
                "of an uninterrupted run",
                key,
                before,
                after,
            )

    def _note_end(self, reason: BaseException) -> None:
        if not self.processes.is_first:
            return
        name = "interrupted" if isinstance(reason, Interrupted) else "failed"
        with suppress(UserError):  # the disk may be full, which is why
            self.folder.journal.note(name, reason=str(reason), stage=len(self.ledger.finished))

    def _trainer(
        self,
        stage: Stage,
        start: Start,
        samples: TrainingSamples,
        interpolation_error: float | None,
    ) -> Trainer:
        experiment = self.experiment
        config = experiment.config
        validator = LevelValidator(
            self.data.validation,
            samples.grid,
            config.model.prolongation,
            experiment.periodic,
            stage.batch_size,
            self.processes,
        )
        stop = config.schedule.stop_at_interpolation_error
        surrogate = self._surrogate(start.network, samples.grid)
        frozen, featurized = start.finetuning.always_frozen, None
        if config.transfer.featurize and split(surrogate.network, frozen):
            featurized = FeaturizedSurrogate(surrogate, frozen)
        trainer = Trainer(
            surrogate,
            self._featurized(featurized, samples, stage) if featurized else samples,
            validator,
            stage,
            build_loss(
                config.loss.name,
                samples.grid,
                experiment.problem,
                config.loss.residual,
                experiment.hierarchy.finer(stage.level),
                config.model.prolongation,
                self.data.scaling.fields,
                config.loss.weights,
            ),
            experiment.options,
            start.finetuning,
            target_error=interpolation_error if stop else None,
            featurized=featurized,
        )
        if config.optimizer.carry_moments:
            trainer.load_moments(start.moments)
        return trainer

    def _featurized(
        self, surrogate: FeaturizedSurrogate, samples: TrainingSamples, stage: Stage
    ) -> FeaturizedSamples:
        """Computes what depends on frozen weights alone once, for all samples of a stage."""
        path = self.ledger.level_folder(stage.level) / "features.h5"
        precision = self.experiment.precision
        file = self.processes.from_first(
            lambda: surrogate.compute(samples, path, stage.batch_size, precision)
        )
        size = path.stat().st_size
        log.info("features of %s samples: %sB in %s", len(samples), si(size), path)
        hold = self.experiment.holds_bytes(size)
        return FeaturizedSamples(samples, file, hold)

    def best_surrogate(self, level: int) -> Surrogate:
        """Returns the best surrogate of a level that has been trained."""
        path = self.ledger.level_folder(level) / BEST
        kept = self.ledger.best.get(level) or load_checkpoint(path)
        network = self.experiment.family.build(level)
        load_strictly(kept["network"], network, path)
        return self._surrogate(network, self.experiment.hierarchy.levels[level])

    def _surrogate(self, network: nn.Module, grid: Grid) -> Surrogate:
        experiment = self.experiment
        return Surrogate.of(network, self.data.scaling, experiment.problem, grid, experiment.device)

    def _test(self) -> TestResult:
        """Tests the best surrogate of the last stage, and writes its weights if they are wanted."""
        stage = self.experiment.stages[-1]
        self._save_weights(stage.level)
        return TestResult.of(self.best_surrogate(stage.level), self.data, stage)

    def _save_weights(self, level: int) -> None:
        """Writes the finished network's weights to the file that the user wants, if any."""
        path = self.experiment.config.checkpoints.save
        if path is not None:
            about = self.experiment.about(level, self.data.scaling)
            save_weights(Path(path), self.ledger.best[level]["network"], about)

"""The ladder: one level after the other, each starting from what the ones before have learned."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from multigrid import signals
from multigrid.data.samples import TrainingSamples
from multigrid.errors import UserError
from multigrid.files import write_json
from multigrid.grid import Grid
from multigrid.ladder.cost import overview
from multigrid.ladder.data import RunData
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.initialization import Start
from multigrid.ladder.recorder import BEST, LAST, Recorder
from multigrid.ladder.results import spectra, summarise, test
from multigrid.ladder.resume import restore
from multigrid.ladder.state import RunState
from multigrid.metrics import negligible_notes
from multigrid.models.scaling import Surrogate
from multigrid.models.transfer import load_strictly
from multigrid.records.history import Row
from multigrid.records.run_folder import RunFolder
from multigrid.schedule import Stage
from multigrid.signals import Interrupted
from multigrid.tables import si
from multigrid.training.callbacks import (
    Callback,
    Callbacks,
    EarlyStopping,
    ProgressBar,
    TensorBoard,
    build_callbacks,
)
from multigrid.training.checkpoint import load_checkpoint, save_weights
from multigrid.training.evaluation import LevelValidator, try_metrics
from multigrid.training.finetuning import FeaturizedSamples, featurize, trains_its_tail
from multigrid.training.progress import DivergedError
from multigrid.training.trainer import Trainer

log = logging.getLogger(__name__)


class LadderRun:
    """One run of an experiment, whose results go into a folder.

    ``state`` is where it is, and ``recorder`` writes that down.
    """

    state: RunState

    def __init__(self, experiment: Experiment, folder: RunFolder) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.folder = folder
        self.processes = experiment.processes
        own = self._own_callbacks()  # before samples are generated, as packages may be missing
        self.data = RunData(experiment)
        names, fields = experiment.problem.output_names, self.data.scaling.fields
        try_metrics(self.data.validation[:2], fields, names, experiment.extensions.metrics)
        self.recorder = Recorder(self.data, folder)
        self.callbacks = Callbacks([self.recorder, *own], self)

    @property
    def rows(self) -> list[Row]:
        """One row of ``metrics.csv`` for each epoch so far."""
        return self.state.rows

    @property
    def stage_costs(self) -> list[float]:
        """What each stage costs, and last what remains for stages by measurement."""
        return self.experiment.plan.stage_costs(self.state.stages, self.state.epoch_costs)

    def train(self, state: RunState | None = None) -> dict[str, Any]:
        """Trains the stages that remain in a state, by default that of the latest checkpoint.

        Then tests the result. Returns the content of ``summary.json``, which is empty in all
        processes but the first.
        """
        self.state = state or restore(self.experiment, self.folder)
        if self.processes.is_first and not self.state.rows:
            self.folder.journal.note("started", **self.experiment.environment)
        log.info("%s\n%s", overview(self.experiment, self.state), self.data.line)
        for split, by_field in self.data.negligible.items():
            for note in negligible_notes(by_field):
                log.warning("%s %s", split, note)
        try:
            self.callbacks.start()
            for stage in self.state.remaining(self.experiment):
                self._train_stage(stage)
            summary = self._write_results() if self.processes.is_first else {}
        except (Exception, Interrupted) as reason:
            self._note_end(reason)
            self.callbacks.end(None)
            raise
        self.callbacks.end(summary)
        return summary

    def _train_stage(self, stage: Stage) -> None:
        """Transfers weights into the network of a stage, trains it and saves it."""
        is_new = self.state.unfinished is None
        trainer = self._begin(stage) if is_new else self._go_on(stage)
        with signals.deferred(agreeing=self.processes.size > 1):
            if is_new:
                trainer.measure_start()
            with self._saved_on_failure():
                trainer.fit(self.callbacks)

    def _begin(self, stage: Stage) -> Trainer:
        """Returns the trainer of a stage, with what its network starts from."""
        started, state = time.perf_counter(), self.state
        start = self.experiment.initializer.start(stage, state.loaded, state.sources(stage))
        state.transfers[stage.level], state.slow = start.report.to_json(), start.slow
        trainer = self._trainer(stage, start)
        if self.config.optimizer.carry_moments:
            trainer.load_moments(start.moments)
        if not state.has_visited(stage.level):
            trainer.progress.seconds += self.data.restriction_seconds[stage.level]
        trainer.progress.seconds += time.perf_counter() - started
        return trainer

    def _go_on(self, stage: Stage) -> Trainer:
        """Returns the trainer of a stage where a checkpoint within it was taken."""
        checkpoint, self.state.unfinished = self.state.unfinished, None
        assert checkpoint is not None
        path = self.recorder.level_folder(stage.level) / LAST
        start = self.experiment.initializer.resume(stage, checkpoint, path)
        trainer = self._trainer(stage, start)
        trainer.resume(checkpoint["trainer"], checkpoint["best"])
        return trainer

    def _trainer(self, stage: Stage, start: Start) -> Trainer:
        experiment, plain = self.experiment, self.data.train[stage.level]
        samples: TrainingSamples | FeaturizedSamples = plain
        surrogate = self._surrogate(start.network, samples.grid)
        how = experiment.prolongation, stage.batch_size, self.processes
        validator = LevelValidator(self.data.validation, samples.grid, *how)
        frozen = start.finetuning.always_frozen
        if self.config.transfer.featurize and trains_its_tail(surrogate.network, frozen):
            samples = featurize(surrogate, plain, stage.batch_size, experiment.precision)
            size = sum(tensor.nbytes for tensor in samples.features)
            log.info("features of %d samples: %sB in memory", len(samples), si(size))
        return Trainer(
            surrogate,
            samples,
            validator,
            stage,
            experiment.loss(samples.grid, stage.level, self.data.scaling.fields),
            experiment.options,
            start.finetuning,
            experiment.unrolling,
        )

    def best_surrogate(self, level: int) -> Surrogate:
        """Returns the best surrogate of a level that has been trained."""
        path = self.recorder.level_folder(level) / BEST
        best = self.state.best.get(level) or load_checkpoint(path)
        network = self.experiment.family.build(level)
        load_strictly(best["network"], network, path)
        return self._surrogate(network, self.experiment.family.input_grid(level))

    def _surrogate(self, network: nn.Module, grid: Grid) -> Surrogate:
        experiment = self.experiment
        return Surrogate.of(network, self.data.scaling, experiment.problem, grid, experiment.device)

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Saves what can be when a stage is interrupted or fails."""
        try:
            yield
        except Interrupted:
            self.recorder.save()
            self.processes.total(0)  # nobody ends before the first one has saved
            raise
        except Exception as error:
            # a file has vanished, the disk is full, the memory too small, a process gone, a
            # callback has failed: save what can be without the others
            if not (isinstance(error, DivergedError) or self.processes.shards):
                with suppress(UserError):
                    self.recorder.save()
            raise

    def _own_callbacks(self) -> list[Callback]:
        """Returns what the run tells beside its recorder; the first process alone shows it."""
        callbacks: list[Callback] = []
        if self.processes.is_first:
            callbacks.append(ProgressBar(self.experiment.hierarchy.levels))
            if self.config.output.tensorboard:
                callbacks.append(TensorBoard(self.folder.tensorboard))
            callbacks += build_callbacks(self.config.output.callbacks)
            callbacks += self.experiment.extensions.callbacks
        patience = self.config.schedule.patience
        return [*callbacks, EarlyStopping(patience)] if patience else callbacks

    def _write_results(self) -> dict[str, Any]:
        """Tests the best surrogate of the last stage; writes the result files and its weights."""
        target, error = self.config.budget.error, self.state.finished[-1]["finest_rel_l2"]
        if target is not None and error > target:
            log.warning("budget spent at an error of %.4g, above %g", error, target)
        stage = self.state.stages[-1]
        path = self.config.checkpoints.save
        if path is not None:
            about = self.experiment.about(stage.level, self.data.scaling)
            save_weights(Path(path), self.state.best[stage.level]["network"], about)
        folder, run = self.folder, {"run": self.folder.identity}
        surrogate = self.best_surrogate(stage.level)
        tested, examples = test(self.experiment, self.data, surrogate, stage)
        examples.write(folder.examples, folder.identity)
        summary = {**run, **tested, **summarise(self.experiment, self.data, self.state)}
        summary["events"] = folder.journal.read()
        write_json(folder.summary, summary)
        levels = sorted({done["level"] for done in self.state.finished})
        best = {level: self.best_surrogate(level) for level in levels}
        content = spectra(self.experiment, self.data.test, best, stage.batch_size)
        write_json(folder.spectra, {**run, **content})
        return summary

    def _note_end(self, reason: BaseException) -> None:
        if not self.processes.is_first:
            return
        name = "interrupted" if isinstance(reason, Interrupted) else "failed"
        with suppress(UserError):  # the disk may be full, which is why
            self.folder.journal.note(name, reason=str(reason), stage=len(self.state.finished))

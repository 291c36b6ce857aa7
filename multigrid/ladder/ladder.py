"""The ladder: one level after the other, each starting from what the ones before have learned."""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from multigrid import signals
from multigrid.data.samples import TrainingSamples
from multigrid.errors import UserError
from multigrid.files import write_json
from multigrid.grid import Grid
from multigrid.ladder.data import RunData
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.initialization import Start
from multigrid.ladder.recorder import BEST, LAST, Recorder, is_finished
from multigrid.ladder.results import TestResults, summarise, write_examples, write_spectra
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
    EarlyStopping,
    ProgressBar,
    TensorBoard,
    build_callbacks,
)
from multigrid.training.checkpoint import load_checkpoint, save_weights
from multigrid.training.evaluation import LevelValidator
from multigrid.training.finetuning import FeaturizedSamples, featurize, trains_its_tail
from multigrid.training.progress import DivergedError
from multigrid.training.trainer import Trainer

log = logging.getLogger(__name__)


class LadderRun:
    """One run of an experiment, whose results go into a folder.

    ``recorder`` has what it has done so far: rows of the metrics, finished stages, checkpoints.
    ``test_results`` is what the last level gives on the test samples, once the run is over; in the
    first process only.
    """

    test_results: TestResults

    def __init__(self, experiment: Experiment, folder: RunFolder) -> None:
        self.experiment = experiment
        self.config = experiment.config
        self.folder = folder
        self.processes = experiment.processes
        self.data = RunData(experiment)
        self.recorder = Recorder(self.data, folder)
        self.callbacks = self._callbacks()

    @property
    def rows(self) -> list[Row]:
        """One row of ``metrics.csv`` for each epoch so far."""
        return self.recorder.rows

    def train(self, resume: bool = False) -> None:
        """Trains the unfinished stages, with ``resume`` from checkpoints, and tests the result."""
        latest = self.recorder.restore() if resume else None
        if latest is None:
            self._start(resume)
        else:
            self._continue(latest)
        unfinished = None if latest is None or is_finished(latest) else latest
        log.info("%s\n%s", self.experiment.describe(), self.data.line)
        for split, by_field in self.data.negligible.items():
            for note in negligible_notes(by_field):
                log.warning("%s %s", split, note)
        try:
            for callback in self.callbacks:
                callback.on_start(self)
            while (stage := self._next_stage(unfinished is not None)) is not None:
                self._train_level(stage, unfinished)
                unfinished = None
            budget, error = self.config.schedule.budget, self.recorder.finished[-1]["finest_rel_l2"]
            if budget is not None and budget.error is not None and error > budget.error:
                log.warning("budget spent at an error of %.4g, above %g", error, budget.error)
            self._test()
        except (UserError, Interrupted, RuntimeError, MemoryError) as reason:
            self._note_end(reason)
            for callback in self.callbacks:
                callback.on_end(self, None)
            raise

    def write_results(self) -> dict[str, Any]:
        """Writes the result files, tells the callbacks and returns ``summary.json``."""
        summary = summarise(self.recorder, self.data, self.test_results)
        for callback in self.callbacks:
            callback.on_end(self, summary)
        write_json(self.folder.summary, summary)
        levels = sorted({stage["level"] for stage in self.recorder.finished})
        surrogates = {level: self.best_surrogate(level) for level in levels}
        last = surrogates[self.experiment.stages[-1].level]
        write_examples(self.recorder, last, self.test_results)
        write_spectra(self.recorder, surrogates, self.data)
        return summary

    def _next_stage(self, unfinished: bool) -> Stage | None:
        """Returns the stage after those finished; one by measurement is chosen now."""
        experiment, finished = self.experiment, self.recorder.finished
        if experiment.is_automatic and not unfinished:
            experiment.stages = self.processes.from_first(lambda: experiment.extended(finished))
        return experiment.stages[len(finished)] if len(experiment.stages) > len(finished) else None

    def _train_level(self, stage: Stage, unfinished: dict[str, Any] | None) -> None:
        """Transfers weights into the level's network, trains it and saves it."""
        started, initializer = time.perf_counter(), self.experiment.initializer
        if unfinished is None:
            states = self.recorder.states(stage)
            start = initializer.start(stage, self.recorder.loaded, states)
        else:
            path = self.recorder.level_folder(stage.level) / LAST
            start = initializer.resume(stage, unfinished, path)
        trainer = self._trainer(stage, start)
        overhead = time.perf_counter() - started
        if not any(done["level"] == stage.level for done in self.recorder.finished):
            overhead += self.data.restriction_seconds[stage.level]
        with signals.deferred(agreeing=self.processes.size > 1):
            try:
                self.recorder.enter(trainer, start, overhead, unfinished)
                patience = self.config.schedule.patience
                callbacks = [*self.callbacks, *([EarlyStopping(patience)] if patience else [])]
                for callback in callbacks:
                    callback.on_level_start(self, trainer)
                trainer.fit([self.recorder, *callbacks])
                self.recorder.finish()
                for callback in callbacks:
                    callback.on_level_end(self, trainer)
            except DivergedError:
                raise
            except Interrupted:
                self.recorder.save()
                self.processes.total(0)  # nobody ends before the first one has saved
                raise
            except (UserError, RuntimeError, MemoryError):
                # a file has vanished, the disk is full, the memory too small, a process gone: save
                # what can be without the others
                if not self.processes.shards:
                    with suppress(UserError):
                        self.recorder.save()
                raise

    def _trainer(self, stage: Stage, start: Start) -> Trainer:
        experiment, config, plain = self.experiment, self.config, self.data.train[stage.level]
        samples: TrainingSamples | FeaturizedSamples = plain
        surrogate = self._surrogate(start.network, samples.grid)
        how = experiment.prolongation, stage.batch_size, self.processes
        validator = LevelValidator(self.data.validation, samples.grid, *how)
        frozen = start.finetuning.always_frozen
        if config.transfer.featurize and trains_its_tail(surrogate.network, frozen):
            samples = featurize(surrogate, plain, stage.batch_size, experiment.precision)
            size = sum(tensor.nbytes for tensor in samples.features)
            log.info("features of %d samples: %sB in memory", len(samples), si(size))
        trainer = Trainer(
            surrogate,
            samples,
            validator,
            stage,
            experiment.loss(samples.grid, stage.level, self.data.scaling.fields),
            experiment.options,
            start.finetuning,
            experiment.unrolling,
        )
        if config.optimizer.carry_moments:
            trainer.load_moments(start.moments)
        return trainer

    def best_surrogate(self, level: int) -> Surrogate:
        """Returns the best surrogate of a level that has been trained."""
        path = self.recorder.level_folder(level) / BEST
        best: Mapping[str, Any] = self.recorder.best.get(level) or load_checkpoint(path)
        network = self.experiment.family.build(level)
        load_strictly(best["network"], network, path)
        return self._surrogate(network, self.experiment.sample_grid(level))

    def _surrogate(self, network: nn.Module, grid: Grid) -> Surrogate:
        experiment = self.experiment
        return Surrogate.of(network, self.data.scaling, experiment.problem, grid, experiment.device)

    def _callbacks(self) -> list[Callback]:
        """Returns the callbacks of the whole run, the user's last."""
        if not self.processes.is_first:
            return []
        experiment = self.experiment
        callbacks: list[Callback] = [ProgressBar(experiment.hierarchy.levels)]
        if self.config.output.tensorboard:
            callbacks.append(TensorBoard(self.folder.tensorboard))
        callbacks += build_callbacks(self.config.output.callbacks)
        return [*callbacks, *experiment.extensions.callbacks]

    def _test(self) -> None:
        """Tests the best surrogate of the last stage, and writes its weights if they are wanted."""
        if not self.processes.is_first:
            return
        stage = self.experiment.stages[-1]
        path = self.config.checkpoints.save
        if path is not None:
            about = self.experiment.about(stage.level, self.data.scaling)
            save_weights(Path(path), self.recorder.best[stage.level]["network"], about)
        self.test_results = TestResults.of(self.best_surrogate(stage.level), self.data, stage)

    # the beginning and the end

    def _start(self, resume: bool) -> None:
        """Starts from weights that the user wants loaded, if any."""
        if resume:
            self.experiment.begin()  # which a resumed run need not do
        self.recorder.loaded = self.experiment.loaded
        if self.processes.is_first:
            self.folder.journal.note("started", **self.experiment.environment)

    def _continue(self, latest: dict[str, Any]) -> None:
        """Writes down from where the run goes on, and what has changed since it stopped there."""
        # what saves memory may be another than when it stopped
        parts, recomputes = map(self.config.per_level, ("accumulate", "checkpoint_activations"))
        self.experiment.stages = [
            replace(s, accumulate=parts[s.level], checkpoint_activations=recomputes[s.level])
            for s in (Stage(**saved) for saved in latest["stages"])
        ]
        self.experiment.epoch_costs = latest["epoch_costs"]
        if not self.processes.is_first or self.folder.summary.exists():
            return  # if all is done, only the report is made again
        before, now = latest["environment"], self.experiment.environment
        changed = {
            key: [before.get(key, "unknown"), value]
            for key, value in now.items()
            if before.get(key) != value
        }
        progress = latest["trainer"]["progress"]
        place = {"epoch": progress["epoch"], "step": len(progress["losses"])}
        self.folder.journal.note("resumed", stage=latest["stage"], **place, changed=changed)
        for key, values in changed.items():
            log.warning(
                "resumed with a different %s: %s before, %s now; the result may differ from that "
                "of an uninterrupted run",
                *(key, *values),
            )

    def _note_end(self, reason: BaseException) -> None:
        if not self.processes.is_first:
            return
        name = "interrupted" if isinstance(reason, Interrupted) else "failed"
        with suppress(UserError):  # the disk may be full, which is why
            self.folder.journal.note(name, reason=str(reason), stage=len(self.recorder.finished))

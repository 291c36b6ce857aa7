"""Going on with a run: reads its latest sound checkpoint, and mends what a kill has left behind."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multigrid.config import Config, read_saved, write_saved
from multigrid.errors import UserError
from multigrid.files import rename
from multigrid.ladder.experiment import Experiment
from multigrid.ladder.recorder import BEST, LAST, PREVIOUS, save_best
from multigrid.ladder.state import RunState, begin, is_finished, resumed
from multigrid.records.run_folder import RunFolder
from multigrid.training.checkpoint import DamagedError, check_place, load_checkpoint

log = logging.getLogger(__name__)

KEYS = {"rows", "finished", "best", "network", "trainer", "start"}


def restore(experiment: Experiment, folder: RunFolder) -> RunState:
    """Returns the state of the latest sound checkpoint of a run, or of a new run without one.

    A damaged checkpoint is named, put aside and left out; where none is left, and no result,
    the run starts from the beginning.
    """
    latest = experiment.processes.from_first(lambda: _latest(experiment, folder))
    if latest is None:
        damaged = any(folder.path.glob("level_*_*/*.damaged"))
        reason = "no sound checkpoint is left" if damaged else "nothing was saved yet"
        log.info("%s: starting from the beginning", reason)
        return begin(experiment)
    state = resumed(latest, experiment)
    _note_resumed(latest, experiment, folder)
    return state


def _note_resumed(latest: Mapping[str, Any], experiment: Experiment, folder: RunFolder) -> None:
    """Writes down from where the run goes on, and what has changed since it stopped there."""
    _, stage, epoch, _, step = _place(latest)
    log.info("resuming after epoch %d, step %d of stage %d", epoch, step, stage)
    if not experiment.processes.is_first or folder.summary.exists():
        return  # if all is done, only the report is made again
    before, changed = latest["environment"], {}
    for key, now in experiment.environment.items():
        if (then := before.get(key, "unknown")) != now:
            changed[key] = [then, now]
            log.warning(
                f"resumed with a different {key}: {then} before, {now} now; the result may "
                "differ from that of an uninterrupted run"
            )
    place = {"stage": stage, "epoch": epoch, "step": step}
    folder.journal.note("resumed", **place, changed=changed)


def _latest(experiment: Experiment, folder: RunFolder) -> dict[str, Any] | None:
    """Reads all checkpoints and returns the one that is furthest, or None.

    One of another run or level is refused, and stays as it is.
    """
    latest = None
    for path in [p for name in (LAST, PREVIOUS) for p in folder.path.glob(f"level_*_*/{name}")]:
        checkpoint = _load(path, folder)
        if checkpoint is None:
            continue
        check_place(path, checkpoint, experiment.config)
        if path.name == LAST and is_finished(checkpoint):
            repair_best(path.with_name(BEST), checkpoint)
        if latest is None or _place(checkpoint) > _place(latest):
            latest = checkpoint
    if latest is None and folder.results:
        raise folder.refusal("it has no sound last.pt")
    fingerprint = experiment.source.fingerprint
    if latest is not None and latest["data_fingerprint"] != fingerprint:
        raise UserError(
            f"{folder.path}: cannot be resumed, as the samples have changed since the run began; "
            "use --overwrite to start again"
        )
    return latest


def _load(path: Path, folder: RunFolder) -> dict[str, Any] | None:
    """Returns a checkpoint; puts it aside if it is damaged."""
    try:
        checkpoint = load_checkpoint(path)
        if not checkpoint.keys() >= KEYS:
            raise DamagedError(f"{path}: holds no state of a run")
    except DamagedError as problem:
        aside = path.with_name(path.name + ".damaged")
        log.warning(f"{problem}; it is put aside as {aside.name}, and the one before is used")
        folder.journal.note("damaged checkpoint", problem=str(problem))
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


def _place(checkpoint: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    """Returns where a run stood: finished stages, stage, epoch, divergences so far and step.

    A divergence starts the epoch again, so it counts for more than a step.
    """
    trainer = checkpoint["trainer"]
    progress, went_back = trainer["progress"], len(trainer["divergence"]["events"])
    epoch, step = progress["epoch"], len(progress["losses"])
    return len(checkpoint["finished"]), checkpoint["stage"], epoch, went_back, step

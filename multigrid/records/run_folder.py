"""The folder of a run: its files, and who may write there."""

import errno
import json
import os
import shutil
import socket
import time
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from multigrid.config import Config, changed_settings, read_saved, write_saved
from multigrid.errors import UserError, nearest
from multigrid.files import (
    JSON_LINE,
    PART,
    YAML,
    discard,
    read_json,
    seal,
    to_json,
    unseal,
    write_json,
)
from multigrid.grid import Grid
from multigrid.tables import listed


class Journal:
    """The file ``journal.jsonl`` of a run, to which lines are only ever added."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, event: str, **facts: Any) -> None:
        """Adds an event."""
        record = {"event": event, "time": time.strftime("%Y-%m-%d %H:%M:%S"), **facts}
        try:
            with self.path.open("ab") as file:
                # on a new line, also after one that a kill has cut short
                line = seal(to_json(record).removesuffix("}"), JSON_LINE)
                file.write(b"\n" * bool(file.tell()) + line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def read(self) -> list[dict[str, Any]]:
        """Returns all events; one that was cut short or damaged is called ``unreadable``."""
        lines, events = list[str](), list[dict[str, Any]]()
        with suppress(OSError):
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in filter(None, lines):
            event: Any = None
            with suppress(ValueError, RecursionError):
                body = unseal(line, JSON_LINE)
                event = json.loads(line if body == line else body + "}")
            sound = isinstance(event, dict) and "event" in event
            events.append(event if sound else {"event": "unreadable"})
        return events


PICTURES = ("convergence", "ladder", "predictions", "rollout", "spectra")


class FolderLock(AbstractContextManager[Any]):
    """The system's lock on a folder, which ends with its process; ``run.lock`` says whose it is."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self._system = FileLock(folder / ".lock", timeout=0, thread_local=False)

    def acquire(self) -> None:
        """Takes the lock, if this process does not hold it yet."""
        if self._system.is_locked:
            return
        try:
            self._system.acquire()
        except Timeout:
            raise UserError(
                f"{self.path.parent}: another run is at work in this folder ({self._owner()}); "
                "stop it first or use another name=..."
            ) from None
        me = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
        write_json(self.path, me)

    def release(self) -> None:
        """Gives the lock back and removes its files."""
        if self._system.is_locked:
            for path in (self.path, Path(self._system.lock_file)):
                with suppress(OSError):  # what is left counts as stale
                    path.unlink(missing_ok=True)
            self._system.release()

    def __exit__(self, *error: object) -> None:
        self.release()

    def _owner(self) -> str:
        try:
            owner = read_json(self.path)
            minutes = (time.time() - owner["started"]) / 60
            return f"process {owner['pid']} on {owner['host']}, for {minutes:.0f} minutes"
        except (UserError, LookupError, TypeError):
            return f"{self.path.name} does not say which"


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "run.log"
        self.metrics = path / "metrics.csv"
        self.summary = path / "summary.json"
        self.examples = path / "predictions.npz"
        self.spectra = path / "spectra.json"
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"
        self.direct = path / "direct"  # the run of --with-direct
        self.journal = Journal(path / "journal.jsonl")
        self.lock = FolderLock(path)

    @cached_property
    def identity(self) -> str:
        """What a run's files name it by: the checksum in its ``config.yaml``; empty without one."""
        try:
            text = self.config.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""
        return text.rpartition(YAML[0])[2].strip() if YAML[0] in text else ""

    def level(self, level: int, grid: Grid | str) -> Path:
        """Returns the folder of a level."""
        return self.path / f"level_{level}_{grid}"

    def check(self, config: Config, resume: bool, overwrite: bool) -> None:
        """Checks that a run may use the folder; changes nothing."""
        self._check_places(config)
        changed = self.changed_keys(config) if resume else []
        if changed:
            raise UserError(
                f"{self.path}: cannot be resumed with a changed configuration; these keys differ: "
                f"{', '.join(changed)}; use another name=... or, instead of --resume, --overwrite"
            )
        if self.holds_run and not (overwrite or resume):
            state = "a finished run" if self.summary.exists() else "an unfinished run"
            raise UserError(
                f"{self.path}: already holds {state}; use --resume to continue it, --overwrite to "
                "replace it, or another name=..."
            )

    @property
    def holds_run(self) -> bool:
        """Whether there is a run in the folder, or what is left of one."""
        return self.config.exists() or bool(self._remains())

    @property
    def results(self) -> list[Path]:
        """What training from the beginning would replace: best surrogates, results of a run."""
        files = [path for path in (self.summary, self.examples, self.spectra) if path.exists()]
        return [*sorted(self.path.glob("level_*_*/best.pt")), *files]

    def refusal(self, lacking: str) -> UserError:
        """Returns the refusal of a resume that could only start again, over what there is."""
        names = [str(path.relative_to(self.path)) for path in self._remains()]
        return UserError(
            f"{self.path}: cannot be resumed, as {lacking}, but holds {listed(names, 3)}"
            "; use another name=..., or --overwrite to replace what is there"
        )

    def _remains(self) -> list[Path]:
        checkpoints = sorted(self.path.glob("level_*_*/last*.pt*"))
        return [*self.results, *checkpoints, *(p for p in (self.metrics,) if p.exists())]

    def claim(self, config: Config, overwrite: bool) -> None:
        """Locks the folder for a new run, removes an earlier one and saves the configuration."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
            self.check(config, resume=False, overwrite=overwrite)
            self._clear()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None
        write_saved(self.config, config.model_dump())

    def tidy(self) -> None:
        """Removes what a killed run left half-written."""
        for path in (*self.path.glob(f"*{PART}"), *self.path.glob(f"level_*_*/*{PART}")):
            discard(path)

    def changed_keys(self, config: Config) -> list[str]:
        """Returns the settings of the run in the folder that a configuration changes."""
        if not self.config.exists():
            return []
        return changed_settings(read_saved(self.config), config)

    def _check_places(self, config: Config) -> None:
        """Checks that nothing else has the names of a run's files and folders."""
        sizes = ["x".join(map(str, shape)) for shape in config.shapes()]
        folders = [self.level(level, size) for level, size in enumerate(sizes)]
        folders += [self.tensorboard, self.direct]
        for path in (*folders, *self._files()):
            if path.exists() and path.is_dir() != (path in folders):
                have, need = (
                    ("folder", "writes a file") if path.is_dir() else ("file", "needs a folder")
                )
                raise UserError(
                    f"{path}: is a {have}, where the run {need}; remove it, or use another name=..."
                )

    def _files(self) -> list[Path]:
        """Returns the files that a run writes, level folders and others aside."""
        first = [self.config, self.log, self.metrics, self.summary, self.journal.path]
        endings = ("png", "pdf", "svg")
        pictures = [self.path / f"{name}.{ending}" for name in PICTURES for ending in endings]
        return [*first, self.examples, self.spectra, self.report, *pictures]

    def _clear(self) -> None:
        """Removes the files of an earlier run, and nothing else; all of them or none."""
        folders = [self.tensorboard, self.direct, *self.path.glob("level_*_*")]
        for path in folders:
            if path.is_symlink():
                raise UserError(
                    f"{path}: is a symbolic link, which is not removed; remove it, or use another "
                    "name=..."
                )
        folders = [path for path in folders if path.is_dir()]
        inside = [Path(place) for path in folders for place, _, _ in os.walk(path)]
        for place in (self.path, *inside):
            if not os.access(place, os.W_OK | os.X_OK):
                raise UserError(f"{place}: cannot be written: {os.strerror(errno.EACCES)}")
        for path in self._files():
            path.unlink(missing_ok=True)
        for path in folders:
            shutil.rmtree(path)


def runs_nearby(path: Path) -> str:
    """Returns a hint at the runs in a folder, or beside a path."""
    parent = path if path.is_dir() else path.parent
    names = sorted(item.parent.name for item in parent.glob("*/config.yaml"))
    more = ", ..." if len(names) > 5 else ""
    near = "" if path.is_dir() else nearest(path.name, names)
    return f"; there are {', '.join(names[:5])}{more} in {parent}{near}" if names else ""

"""The folder of a run: its files, and who may write there."""

import json
import shutil
from pathlib import Path
from typing import Any

from multigrid.config import Config, changed_keys, dump_config, read_saved
from multigrid.errors import UserError
from multigrid.grid import Grid

PICTURES = ("convergence", "ladder", "predictions", "rollout", "spectra")


class RunFolder:
    """The files of one run.

    Args:
        path: The folder.
    """

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

    @property
    def pictures(self) -> list[Path]:
        """The figures that may be there, in whichever format."""
        return [
            self.path / f"{name}.{ending}" for name in PICTURES for ending in ("png", "pdf", "svg")
        ]

    def level(self, level: int, grid: Grid) -> Path:
        """Returns the folder of a level, made if necessary."""
        folder = self.path / f"level_{level}_{grid}"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
        return folder

    def check(self, config: Config, resume: bool, overwrite: bool) -> None:
        """Checks that a run may use the folder; changes nothing.

        Raises:
            UserError: If the folder already holds a run and neither flag is given, if there is
                nothing to resume, or if the configuration changed since.
        """
        if resume:
            self._check_resumable(config)
        elif self.config.exists() and not overwrite:
            state = "a finished run" if self.summary.exists() else "an unfinished run"
            raise UserError(
                f"{self.path}: already holds {state}; use --resume to continue it, --overwrite to "
                "replace it, or another name=..."
            )

    def claim(self, config: Config, overwrite: bool) -> None:
        """Saves the configuration in the folder; to overwrite, removes an earlier run first.

        Raises:
            UserError: If the folder cannot be written.
        """
        try:
            if overwrite:
                self._clear()
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None
        write_text(self.config, dump_config(config))

    def _check_resumable(self, config: Config) -> None:
        if not self.config.exists():
            raise UserError(f"{self.path}: holds no run to resume")
        changed = changed_keys(read_saved(self.config), config.model_dump())
        if changed:
            raise UserError(
                f"{self.path}: cannot be resumed with a changed configuration; these keys differ: "
                f"{', '.join(changed)}"
            )

    def _clear(self) -> None:
        """Removes the files of an earlier run, and nothing else."""
        for path in (self.config, self.log, self.metrics, self.summary):
            path.unlink(missing_ok=True)
        for path in (self.examples, self.spectra, self.report, *self.pictures):
            path.unlink(missing_ok=True)
        for path in (self.tensorboard, *self.path.glob("level_*_*")):
            if path.is_dir():
                shutil.rmtree(path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file aside and renames it into place.

    Raises:
        UserError: If it cannot be written; a file already there is untouched.
    """
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def write_json(path: Path, value: Any) -> None:
    """Writes plain containers as JSON, aside and renamed into place."""
    write_text(path, json.dumps(value, indent=2) + "\n")

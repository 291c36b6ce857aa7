"""What result files say of a run: an epoch a row of ``metrics.csv``, and its networks."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

from multigrid.errors import UserError
from multigrid.files import checksum, require_run, write_text

STILL_IMPROVING = 0.05


@dataclass(frozen=True)
class Row:
    """One epoch of a stage; epoch 0 is the state on entering it, with no loss and no rate.

    The error is on the level's grid, and that of the prediction prolonged to the finest grid.
    Seconds (of training, and of validation), work units and FLOPs count from the start of the run;
    a work unit is an epoch on the finest grid. ``val_by_field`` has the errors of the output fields
    on the level's grid, in their order, with semicolons between them.
    """

    stage: int
    level: int
    grid: str
    epoch: int
    train_loss: float | None
    val_rel_l2: float
    val_finest_rel_l2: float
    learning_rate: float | None
    gradient_norm: float | None
    seconds: float
    evaluation_seconds: float
    work_units: float
    flops: float
    val_by_field: str = ""

    @classmethod
    def zero(cls) -> "Row":
        """Returns the row that stands before the first one."""
        return cls(0, 0, "", 0, None, 0.0, 0.0, None, None, 0.0, 0.0, 0.0, 0.0)


def outcome(errors: Sequence[float]) -> str:
    """Returns how the validation error, that at the start included, went in a stage, in words.

    It still improves if the last fifth of the epochs lowered the lowest error by more than
    :data:`STILL_IMPROVING`.
    """
    if len(errors) < 2:
        return "not trained"
    if min(errors[1:]) >= errors[0]:
        return "never improved"
    last = max(1, (len(errors) - 1) // 5)
    before = min(errors[:-last])
    return "still improving" if min(errors) < (1 - STILL_IMPROVING) * before else "levelled off"


COSTS = {
    "epochs": "epochs",
    "seconds": "training time [s]",
    "work_units": "work units (1 = an epoch on the finest grid)",
    "flops": "floating-point operations",
}
"""What errors are drawn against, and how axes are labelled."""

NAMES = [field.name for field in fields(Row)]
HEADER = ",".join([*NAMES, "run", "checksum"])
EARLIER = ",".join(NAMES[:-1])  # of version 0.1; for a while each row had its own checksum


def write_history(path: Path, rows: Sequence[Row], run: str = "") -> None:
    """Writes all rows, each with the run and a checksum."""
    lines = [",".join([*("" if v is None else str(v) for v in astuple(row)), run]) for row in rows]
    sealed = (",".join(pair) for pair in zip(lines, _checksums(lines), strict=True))
    write_text(path, "\n".join([HEADER, *sealed]) + "\n")


def _checksums(lines: Sequence[str]) -> list[str]:
    """Returns a checksum of each line and of all before it, so that missing ones are seen."""
    links = accumulate(lines, lambda link, line: checksum(link + line), initial="")
    return list(links)[1:]


def read_history(path: Path, run: str = "") -> list[Row]:
    """Reads the rows back, also those of earlier versions.

    Raises:
        UserError: If the file is not there, a row is damaged or missing between others, or the
            file is of another run than ``run``.
    """
    kinds: dict[str, Any] = {f.name: f.type if f.type in (int, str) else float for f in fields(Row)}
    optional = {field.name for field in fields(Row) if field.type == float | None}
    rows, owner = [], ""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut short" if text else "it is empty")
        header, *lines = text.splitlines()
        if header in (HEADER, f"{EARLIER},checksum"):
            found = [line.rpartition(",")[2] for line in lines]
            lines = [line.rpartition(",")[0] for line in lines]
            if found != (_checksums(lines) if header == HEADER else [*map(checksum, lines)]):
                raise ValueError(
                    "a row's checksum is wrong: it is damaged or was changed, or the one before "
                    "it is missing"
                )
        elif header != EARLIER:
            raise ValueError("its columns are others")
        names = header.removesuffix(",checksum").split(",")
        for line in lines:
            cells = dict(zip(names, line.split(","), strict=True))
            owner = cells.pop("run", "")
            values: Any = {
                name: None if not cell and name in optional else kinds[name](cell)
                for name, cell in cells.items()
            }
            rows.append(Row(**values))
    except FileNotFoundError:
        raise UserError(f"{path}: not there, as the run has finished no epoch yet") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable or half-written ({error})") from None
    require_run(path, owner, run)
    return rows


SCALE_KEY = re.compile(r"^scales\.(\d+)\.(\w+)\.")
COPIED = ("TRANSFERRED", "FROZEN")


@dataclass(frozen=True)
class LevelParts:
    """The network of a level on entering it, with the tensors' records of ``transfer.json``."""

    level: int
    grid: str
    scale_grids: Sequence[str]
    tensors: Sequence[Mapping[str, Any]]

    def count(self, *statuses: str) -> int:
        """Returns the number of parameters with one of the statuses."""
        return sum(prod(t["shape"]) for t in self.tensors if t["status"] in statuses)

    def parts(self) -> dict[tuple[int, str], str]:
        """Returns whether each part of each scale is new; nothing for a network of other names."""
        copied: dict[tuple[int, str], set[bool]] = defaultdict(set)
        for tensor in self.tensors:
            match = SCALE_KEY.match(tensor["key"])
            if match and tensor["status"] != "UNUSED":
                copied[int(match[1]), match[2]].add(tensor["status"] in COPIED)
        words = {True: "transferred", False: "new"}
        return {n: "mixed" if len(c) > 1 else words[next(iter(c))] for n, c in copied.items()}


def epochs_so_far(rows: Sequence[Row]) -> list[int]:
    """Returns the number of epochs trained at each row, all stages counted."""
    return list(accumulate(int(row.epoch > 0) for row in rows))

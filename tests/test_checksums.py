"""Whatever happens to a file that we wrote, what is read from it is right or refused."""

from contextlib import suppress
from dataclasses import astuple, fields, replace

import numpy as np
import pytest

from multigrid.config import parse_config, read_saved, write_saved
from multigrid.errors import UserError
from multigrid.files import checksum, read_json, write_json
from multigrid.records.examples import Cut, Examples
from multigrid.records.history import Row, read_history, write_history
from multigrid.records.run_folder import Journal

ROWS = [
    Row(0, 0, "8x8", 0, None, 0.9, 1.5, None, None, 0.25, 0.5, 0.0, 0.0),
    Row(0, 0, "8x8", 1, 0.125, 0.3, 1e-5, 1e-3, 2.5, 1.25, 0.75, 0.5, 1e9),
]
VALUE = {"test": {"rel_l2": 0.0125, "max": None}, "levels": [{"grid": [8, 8]}], "name": "tiny"}
CONFIG = parse_config(
    {"name": "tiny", "problem": {"kind": "poisson", "num_modes": 4}, "levels": [8]}
)


def note_events(path, events):
    for event in events:
        Journal(path).note(event, stage=3, reason='a ", "checksum": "b')


def read_events(path):
    events = [event["event"] for event in Journal(path).read()]
    if "unreadable" in events:
        raise UserError("it says so")
    return events


def write_examples(path, fields):
    cut = Cut("", fields, fields, fields + 1)
    Examples((4, 4), ("f",), ("u",), fields[:, :, 0, 0], (cut,), labels=("best", "worst")).write(
        path
    )


def read_examples(path):
    examples = Examples.read(path)
    assert (examples.grid, examples.input_names, examples.labels) == (
        (4, 4), ("f",), ("best", "worst"),
    )  # fmt: skip
    assert np.array_equal(examples.cuts[0].prediction, examples.cuts[0].truth + 1)
    return examples.cuts[0].inputs.tolist()


FIELDS = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4)
KINDS = {
    "metrics.csv": (write_history, read_history, ROWS),
    "summary.json": (write_json, lambda path: {k: read_json(path)[k] for k in VALUE}, VALUE),
    "config.yaml": (lambda path, c: write_saved(path, c.model_dump()), read_saved, CONFIG),
    "journal.jsonl": (note_events, read_events, ["started", "resumed"]),
    "predictions.npz": (write_examples, read_examples, FIELDS),
}


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_told_or_harmless(name, tmp_path):
    path = tmp_path / name
    write, read, value = KINDS[name]
    write(path, value)
    content, expected = path.read_bytes(), read(path)
    for number in range(0, 8 * len(content), max(1, 8 * len(content) // 500)):
        at, bit = divmod(number, 8)
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        check(path, changed, read, expected)
        changed = bytearray(content)
        changed[at : at + 1 + number % 300] = bytes(len(changed[at : at + 1 + number % 300]))
        check(path, changed, read, expected)


def check(path, content, read, expected):
    path.write_bytes(content)
    with suppress(UserError):
        assert read(path) == expected


def write_earlier(path, rows, checksums):
    """Writes metrics as earlier versions did: without the run, and rows sealed one by one."""
    lines = [",".join("" if v is None else str(v) for v in astuple(row)[:-1]) for row in rows]
    header = ",".join(field.name for field in fields(Row)[:-1])
    if checksums:
        header, lines = f"{header},checksum", [f"{line},{checksum(line)}" for line in lines]
    path.write_text("\n".join([header, *lines]) + "\n")


def test_metrics_of_earlier_versions_are_read(tmp_path):
    path = tmp_path / "metrics.csv"
    for checksums in (False, True):
        write_earlier(path, ROWS, checksums)
        assert read_history(path, "0123456789abcdef") == ROWS
    path.write_text(path.read_text().replace("1.25", "1.26"))
    with pytest.raises(UserError, match="a row's checksum is wrong"):
        read_history(path)


def test_missing_rows_and_files_of_other_runs_are_told(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [replace(ROWS[1], epoch=epoch) for epoch in range(4)]
    write_history(path, rows, "a" * 16)
    header, *lines = path.read_text().splitlines(keepends=True)
    for kept in ([0, 1, 3], [0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3]):
        path.write_text(header + "".join(lines[i] for i in kept))
        with pytest.raises(UserError, match="the one before it is missing"):
            read_history(path)
    path.write_text("")
    with pytest.raises(UserError, match=r"unreadable or half-written \(it is empty\)"):
        read_history(path)
    path.write_text(header + "".join(lines))
    assert read_history(path) == read_history(path, "a" * 16) == rows
    with pytest.raises(UserError, match=rf"^{path}: is of another run than the config\.yaml"):
        read_history(path, "b" * 16)


def test_files_without_a_checksum_are_read(tmp_path):
    for name in ("summary.json", "config.yaml", "journal.jsonl"):
        write, read, value = KINDS[name]
        write(tmp_path / name, value)
        expected = read(tmp_path / name)
        text = (tmp_path / name).read_text()
        lines = text.splitlines()
        if name == "journal.jsonl":
            lines = [line.rpartition(', "checksum"')[0] + "}" for line in lines]
        else:
            lines = [line for line in lines if "checksum" not in line]
            lines = [*lines[:-2], lines[-2].rstrip(","), lines[-1]] if name[0] == "s" else lines
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        assert "checksum" not in (tmp_path / name).read_text() or name == "journal.jsonl"
        assert read(tmp_path / name) == expected


def test_json_that_is_read_and_written_again_has_one_checksum(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, VALUE)
    before = path.read_text()
    write_json(path, read_json(path))
    assert path.read_text() == before

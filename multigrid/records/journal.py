"""What happened to a run, one line of JSON for each event, kept through kills and resumes."""

import json
import os
import time
from pathlib import Path
from typing import Any

from multigrid.errors import UserError
from multigrid.files import to_json


class Journal:
    """The file ``journal.jsonl`` of a run, to which lines are only ever added.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, event: str, **facts: Any) -> None:
        """Adds an event.

        Raises:
            UserError: If the file cannot be written.
        """
        record = {"event": event, "time": time.strftime("%Y-%m-%d %H:%M:%S"), **facts}
        try:
            with self.path.open("ab") as file:
                # on a new line, also after one that a kill has cut short
                file.write(b"\n" * bool(file.tell()) + to_json(record).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def read(self) -> list[dict[str, Any]]:
        """Returns all events; a line that was cut short is left out."""
        events = []
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        for line in lines:
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return [event for event in events if isinstance(event, dict)]

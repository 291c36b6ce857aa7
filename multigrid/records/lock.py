"""One run at a time in a results folder."""

import json
import os
import socket
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from multigrid.errors import UserError
from multigrid.files import write_json

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 35.0
"""How long a lock from another machine may stay untouched: three beats and a half."""


class FolderLock(AbstractContextManager[Any]):
    """A file ``run.lock`` that names the process at work in a folder, which touches it regularly.

    On one machine the system's lock on ``.lock`` decides; it ends with its process. A lock from
    another machine, which the system may know nothing of, counts while it is being touched.

    Attributes:
        taken_over: The owner of a stale lock that was there, or None.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self.taken_over: dict[str, Any] | None = None
        self._system = FileLock(folder / ".lock", timeout=0, thread_local=False)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lock, if this process does not hold it yet."""
        if self._thread is not None:
            return
        decided = True
        try:
            self._system.acquire()
        except Timeout:
            raise self._refusal(self._owner()) from None
        except (OSError, NotImplementedError):  # a file system without locks
            decided = False
        owner, host = self._owner(), socket.gethostname()
        try:
            if owner and not (decided and owner.get("host") == host):
                self._wait_for_touch(owner)
            write_json(self.path, {"pid": os.getpid(), "host": host, "started": time.time()})
        except BaseException:
            self._system.release()
            raise
        self.taken_over = owner or None
        self._over.clear()
        self._thread = threading.Thread(target=self._touch, daemon=True, name="lock")
        self._thread.start()

    def release(self) -> None:
        """Gives the lock back and removes its files."""
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._thread = None
        for path in (self.path, Path(self._system.lock_file)):
            with suppress(OSError):  # what is left counts as stale
                path.unlink(missing_ok=True)
        self._system.release()

    def _owner(self) -> dict[str, Any]:
        try:
            owner = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def _wait_for_touch(self, owner: dict[str, Any]) -> None:
        """Raises UserError if the owner touches the file before the patience is over."""
        before = self.path.stat().st_mtime_ns
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            time.sleep(min(0.5, PATIENCE_SECONDS / 4))
            if self.path.exists() and self.path.stat().st_mtime_ns != before:
                raise self._refusal(owner)

    def _refusal(self, owner: dict[str, Any]) -> UserError:
        started, age = owner.get("started"), ""
        if isinstance(started, int | float):
            age = f", for {(time.time() - started) / 60:.0f} minutes"
        who = f"process {owner.get('pid', '?')} on {owner.get('host', 'some machine')}{age}"
        where = f"{self.path.parent}: another run is at work in this folder ({who})"
        return UserError(f"{where}; stop it first or use another name=...")

    def __exit__(self, *error: object) -> None:
        self.release()

    def _touch(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            with suppress(OSError):  # a missed beat or two do no harm
                os.utime(self.path)

"""One run at a time in a results folder."""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from multigrid.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 35.0
"""How long to watch a lock of another machine for a sign of life: three beats and a half."""


class FolderLock:
    """A file ``run.lock`` that says who works in a folder, since when, and that he is alive.

    The system's own lock on the file tells whether the owner lives where it can, and ends with
    the owner. A lock from another machine counts for as long as the owner touches the file;
    whoever meets one watches it for a while before taking it over.

    Args:
        folder: The folder, which must exist when the lock is acquired.

    Attributes:
        taken_over: The owner of a stale lock that was found, or None.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self.taken_over: dict[str, Any] | None = None
        self._descriptor: int | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Takes the lock, if this process does not hold it yet.

        Raises:
            UserError: If another run holds it, or the folder cannot be written.
        """
        if self.held:
            return
        descriptor = self._open()
        try:
            system_knows = self._lock(descriptor)
            if self._removed(descriptor):  # by its owner, who has just ended
                raise self._refusal({})
            owner = self._owner()
            if owner is not None and not (system_knows and owner.get("host") == _host()):
                self._watch(owner)
            self._write(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self.taken_over = descriptor, owner
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lock")
        self._thread.start()

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives the lock back and removes its file."""
        if self._descriptor is None:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(OSError):  # what is left counts as stale
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> int:
        """Opens the file that is there, or makes it."""
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _lock(self, descriptor: int) -> bool:
        """Takes the system's lock; returns False where there is no such thing."""
        if fcntl is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(self._owner() or {}) from None
        except OSError:
            return False
        return True

    def _removed(self, descriptor: int) -> bool:
        try:
            return os.fstat(descriptor).st_ino != self.path.stat().st_ino
        except FileNotFoundError:
            return True

    def _owner(self) -> dict[str, Any] | None:
        try:
            owner = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return owner if isinstance(owner, dict) else None

    def _watch(self, owner: dict[str, Any]) -> None:
        """Waits for a sign of life.

        Raises:
            UserError: If there is one.
        """
        before = self.path.stat().st_mtime_ns
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            time.sleep(min(0.5, PATIENCE_SECONDS / 4))
            if self.path.stat().st_mtime_ns != before:
                raise self._refusal(owner)

    def _refusal(self, owner: dict[str, Any]) -> UserError:
        started = owner.get("started")
        age = ""
        if isinstance(started, int | float):
            age = f", for {(time.time() - started) / 60:.0f} minutes"
        who = f"process {owner.get('pid', '?')} on {owner.get('host', 'some machine')}{age}"
        return UserError(
            f"{self.path.parent}: another run is at work in this folder ({who}); stop it first or "
            "use another name=..."
        )

    def _write(self, descriptor: int) -> None:
        owner = {"pid": os.getpid(), "host": _host(), "started": time.time()}
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                os.utime(self.path)
            except OSError:
                continue  # a missed beat or two do no harm


def _host() -> str:
    return socket.gethostname()

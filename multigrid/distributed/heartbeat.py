"""Processes that watch each other: one that dies or fails is missed within a minute, by name."""

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from multigrid.distributed.processes import local_rank
from multigrid.errors import UserError
from multigrid.signals import STATUS, Interrupted

BEAT_SECONDS = 1.0
PATIENCE_SECONDS = 40.0
"""For how long a process may be silent, as it is while it computes without Python."""
SUSPICION_SECONDS = 8.0
"""The same once a connection to some process is broken."""
PAUSE_SECONDS = 5.0
"""A longer time without a look means that this process itself was held, as the others may be."""
GRACE_SECONDS = 10.0
"""How long the work gets to end by itself once another process is known to be gone."""


JOINS = itertools.count()
"""Numbers the times that this process has joined others, which all do equally often."""


class Watch:
    """A thread that tells the others that this process lives, and how it ends.

    Args:
        rank: Number of this process.
        size: Number of processes.
        store: A connection of its own to the store that they share.
    """

    def __init__(self, rank: int, size: int, store: dist.Store) -> None:
        self.rank = rank
        self.size = size
        self.store = store
        self.heard = {other: (b"", time.monotonic()) for other in range(size) if other != rank}
        self.gone: BaseException | None = None
        self._looked = time.monotonic()
        self._over = threading.Event()
        self._free = threading.Event()
        self._free.set()
        self._number = next(JOINS)
        self._lock = threading.Lock()
        store.set(self._key("name", rank), f"on {socket.gethostname()}, process id {os.getpid()}")
        self.thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self.thread.start()

    def explain(self) -> BaseException | None:
        """Waits for who is gone to become clear; returns what to raise, or None if nobody is."""
        until = time.monotonic() + PATIENCE_SECONDS
        self._look(SUSPICION_SECONDS)
        while self.gone is None and time.monotonic() < until:
            time.sleep(BEAT_SECONDS / 2)
            self._look(SUSPICION_SECONDS)
        return self.gone

    def end(self, kind: str, text: str = "") -> None:
        """Tells the others how this process ends: ``done``, ``failed`` or ``stopped``.

        Whoever fails leaves them time to read it before connections break; whoever is stopped
        waits for the first one, which saves, as some launchers kill all when one has ended.
        """
        self._over.set()
        try:
            with self._lock:
                self.store.set(self._key("end", self.rank), f"{kind} {text}")
                until = time.monotonic() + PATIENCE_SECONDS
                while kind == "stopped" and not self._read("end", 0):
                    if time.monotonic() > until:
                        return
                    time.sleep(BEAT_SECONDS / 10)
        except RuntimeError:  # the process that kept the store is gone, so nobody can be told
            return
        if kind == "failed" or (kind == "stopped" and self.rank == 0):
            time.sleep(2 * BEAT_SECONDS)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Keeps this process from being ended meanwhile, as while it saves."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def _key(self, what: str, rank: int) -> str:
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
        return f"multigrid/{restart}/{self._number}/{what}/{rank}"

    def _run(self) -> None:
        beat = 0
        while not self._over.wait(BEAT_SECONDS):
            beat += 1
            self._look(PATIENCE_SECONDS, beat)
            if self.gone is not None:
                self._end_the_work()
                return

    def _end_the_work(self) -> None:
        """Ends the process if it does not do so by itself, as it waits for ever for the others."""
        if self._over.wait(GRACE_SECONDS + SUSPICION_SECONDS):
            return
        self._free.wait()
        if self._over.wait(BEAT_SECONDS):
            return
        if isinstance(self.gone, Interrupted):
            os._exit(STATUS)
        if local_rank() == 0:
            sys.stderr.write(f"error: {self.gone}\n")
            sys.stderr.flush()
        os._exit(2)

    def _look(self, patience: float, beat: int | None = None) -> None:
        """Says that this process lives, and looks for signs of life of the others."""
        with self._lock:
            if self.gone is not None:
                return
            now = time.monotonic()
            if now - self._looked > PAUSE_SECONDS:
                self.heard = {other: (known, now) for other, (known, _) in self.heard.items()}
            self._looked = now
            try:
                if beat is not None:
                    self.store.set(self._key("beat", self.rank), str(beat))
                for other in self.heard:
                    self._look_at(other, patience)
            except RuntimeError:
                self.gone = UserError(
                    f"process 0 of {self.size} is gone, and with it the connection to the others"
                )

    def _look_at(self, other: int, patience: float) -> None:
        end = self._read("end", other)
        if end:
            kind, _, text = end.decode().partition(" ")
            if kind == "stopped":
                self.gone = Interrupted(text)
            elif kind == "failed":
                self.gone = UserError(f"process {other} of {self.size}: {text}")
            return
        beat, (before, since) = self._read("beat", other), self.heard[other]
        if beat != before:
            self.heard[other] = beat, time.monotonic()
        elif time.monotonic() - since > patience:
            name = self._read("name", other).decode()
            self.gone = UserError(
                f"process {other} of {self.size} ({name}) has died or no longer answers; what was "
                "saved is sound: --resume goes on from there"
            )

    def _read(self, what: str, rank: int) -> bytes:
        key = self._key(what, rank)
        return self.store.get(key) if self.store.check([key]) else b""


def connect() -> dist.Store:
    """Returns a connection of its own to the store of all processes."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    timeout = timedelta(seconds=PATIENCE_SECONDS)
    return dist.TCPStore(address, port, is_master=False, timeout=timeout)

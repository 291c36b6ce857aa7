"""Processes that notice within a minute that another one is gone, and say which.

Once a second each process writes a number into the store that they share. Collective calls alone
do not suffice: their time limit cannot tell a process that is gone from one that compiles.
"""

import itertools
import os
import socket
import sys
import threading
from datetime import timedelta

import torch.distributed as dist

from multigrid.distributed import local_rank
from multigrid.errors import UserError
from multigrid.signals import STATUS, Interrupted

BEAT_SECONDS = 1.0
PATIENCE = 40
"""For how many beats a process may be silent, as it is while it computes without Python."""
SUSPICION = 8
"""The same once a connection to some process is broken."""
GRACE_SECONDS = 18.0
"""How long the work gets to end by itself once another process is gone."""


class Heartbeat:
    """Tells the other processes that this one lives, and how it ends; notices who is gone.

    The store must be used by nobody else, and give up after a while. ``gone`` is what to raise once
    another process has ended before its time; ``busy`` is held while this one must not be ended, as
    while it saves.
    """

    def __init__(self, rank: int, size: int, store: dist.Store) -> None:
        self.rank, self.size, self.store = rank, size, store
        self.gone: BaseException | None = None
        self.busy = threading.RLock()
        self._patience = PATIENCE
        self._latest = {other: b"" for other in range(size) if other != rank}
        self._silent = dict.fromkeys(self._latest, 0)
        self._ends: dict[int, str] = {}
        self._noticed, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def explain(self) -> BaseException | None:
        """Returns what to raise after a connection broke; waits until it is clear who is gone."""
        self._patience = min(SUSPICION, self._patience)
        self._noticed.wait((PATIENCE + 2) * BEAT_SECONDS)
        return self.gone

    def end(self, kind: str, text: str = "") -> None:
        """Tells the others how this process ends: ``done``, ``failed`` or ``stopped``.

        Whoever fails leaves them time to read it before connections break; whoever is stopped
        waits for process 0, which saves, as some launchers kill all when one has ended.
        """
        self._over.set()
        try:
            self.store.set(f"end/{self.rank}", f"{kind} {text}")
            if kind == "stopped" and self.rank:
                self.store.wait(["end/0"], timedelta(seconds=PATIENCE * BEAT_SECONDS))
        except RuntimeError:
            return  # the process that kept the store is gone, so nobody can be told
        if kind == "failed" or (kind == "stopped" and self.rank == 0):
            self._noticed.wait(2 * BEAT_SECONDS)

    def _beat(self) -> None:
        """Counts silent beats; not seconds, so that a paused process does not count as dead."""
        name = f"(on {socket.gethostname()}, process id {os.getpid()})"
        for number in itertools.count():
            try:
                self.store.set(f"beat/{self.rank}", f"{number} {name}")
                for other in self._latest:
                    self._listen_to(other)
            except RuntimeError:  # process 0 keeps the store
                self._ends.setdefault(0, "lost")
            gone = filter(None, (self._judge(other) for other in self._latest))
            self.gone = next(gone, None)
            if self.gone is not None:
                break
            if self._over.wait(BEAT_SECONDS):
                return
        self._noticed.set()
        self._end_the_work()

    def _listen_to(self, other: int) -> None:
        if self.store.check([f"end/{other}"]):
            self._ends[other] = self.store.get(f"end/{other}").decode()
        before = self._latest[other]
        if self.store.check([f"beat/{other}"]):
            self._latest[other] = self.store.get(f"beat/{other}")
        self._silent[other] = 0 if self._latest[other] != before else self._silent[other] + 1

    def _judge(self, other: int) -> BaseException | None:
        """Returns what to raise because of another process, if anything."""
        kind, _, text = self._ends.get(other, "").partition(" ")
        process = f"process {other} of {self.size}"
        if kind == "stopped":
            return Interrupted(text)
        if kind == "failed":
            return UserError(f"{process}: {text}")
        if kind == "done" or (not kind and self._silent[other] <= self._patience):
            return None
        name = self._latest[other].decode().partition(" ")[2]
        return UserError(
            f"{process} {name} has died or no longer answers; what was saved is sound: --resume "
            "goes on from there"
        )

    def _end_the_work(self) -> None:
        """Ends the process if it does not do so by itself, as it waits for ever for the others."""
        if local_rank() and self.rank == 1 and self._ends.get(0, "lost") == "lost":
            sys.stderr.write(f"error: {self.gone}\n")  # for process 0, which tells everything else
        if self._over.wait(GRACE_SECONDS):
            return
        with self.busy:
            pass
        if self._over.wait(BEAT_SECONDS):
            return
        if isinstance(self.gone, Interrupted):
            os._exit(STATUS)
        if local_rank() == 0:
            sys.stderr.write(f"error: {self.gone}\n")
        sys.stderr.flush()
        os._exit(2)

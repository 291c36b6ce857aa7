"""Signals that ask a run to stop: Ctrl-C, SIGTERM, and SIGUSR1, Slurm's warning before it kills.

The first signal raises :class:`Interrupted`: at once or, while work must not be cut short, where
the work calls :func:`check`. A second Ctrl-C raises ``KeyboardInterrupt`` in any case.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 75
"""Exit status of a command that was stopped and can be resumed: EX_TEMPFAIL of BSD's sysexits."""

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
NUMBERS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal has asked to stop; its name is the argument. Not an error, so no ``Exception``."""


class _State:
    received: str | None = None
    deferring = False
    agreeing = False


def _receive(number: int, frame: FrameType | None) -> None:
    again = _State.received is not None
    if again and number == signal.SIGINT:
        raise KeyboardInterrupt
    if again:
        return
    _State.received = signal.Signals(number).name
    if _State.deferring:
        # a handler may run within any print, so not through Python's buffers
        os.write(2, f"\n{_State.received}: saving; Ctrl-C to stop at once\n".encode())
    else:
        raise Interrupted(_State.received)


@contextmanager
def watched() -> Iterator[None]:
    """Turns signals into :class:`Interrupted` within the context; does nothing in other threads."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.received, _State.deferring, _State.agreeing = None, False, False
    before = {number: signal.signal(number, _receive) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.received = None


@contextmanager
def deferred(agreeing: bool = False) -> Iterator[None]:
    """Makes signals wait within the context until the work calls :func:`check`.

    ``agreeing``: :func:`check` is silent too, as processes agree on when to stop by ``received``.
    """
    before = _State.deferring, _State.agreeing
    _State.deferring, _State.agreeing = True, agreeing
    try:
        yield
    finally:
        _State.deferring, _State.agreeing = before


def check() -> None:
    """Raises :class:`Interrupted` if a signal is waiting."""
    if _State.received is not None and not _State.agreeing:
        raise Interrupted(_State.received)


def received() -> str | None:
    """Returns the name of a signal that is waiting, or None."""
    return _State.received


def ignore_in_worker() -> None:
    """Leaves all signals to the parent, for processes that end with it."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)

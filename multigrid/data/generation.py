"""Generating samples, on one core or on many.

Imports no torch, because worker processes import this module.
"""

import hashlib
import json
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

import numpy as np

from multigrid import signals
from multigrid.data import SPLITS
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.hardware import keep_large_buffers
from multigrid.problems.base import PDE

BLOCK = 64
BLOCK_POINTS = 2**22
# Starting worker processes takes a second or two; shorter work is done without them.
SERIAL_SECONDS = 5.0
# A sample that is drawn alone may differ a little: solvers stop early, chaos amplifies rounding.
SAME_SAMPLE = 0.02
THREADS = "OMP_NUM_THREADS"  # which OpenBLAS and MKL respect as well

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Block:
    """Consecutive samples of a split, ``start`` to ``stop - 1``."""

    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Recipe:
    """Everything that samples depend on: what to sample, on which grid, with which seed.

    Outputs are those of ``num_steps`` steps, one after the other among the channels.
    """

    problem: PDE
    grid: Grid
    seed: int
    num_steps: int = 1

    @property
    def num_channels(self) -> tuple[int, int]:
        """Number of input and of output channels."""
        inputs, outputs = self.problem.num_channels
        return inputs, self.num_steps * outputs

    @property
    def settings(self) -> dict[str, Any]:
        """The same as plain values."""
        source = self.problem.source
        return {
            **({"source": source} if source else {}),
            "problem": self.problem.kind,
            "version": self.problem.version,
            "parameters": self.problem.parameters,
            "grid": list(self.grid.shape),
            "centering": self.grid.centering,
            "seed": self.seed,
            **({"num_steps": self.num_steps} if self.num_steps > 1 else {}),
        }

    @property
    def fingerprint(self) -> str:
        """Hash of the settings."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def make(self, block: Block) -> Arrays:
        """Returns input and output fields ``[len(block), channels, *grid]`` in float32.

        Sample i of a split depends on seed, split and i alone.

        Raises:
            UserError: If the problem gives something else than finite fields of these shapes.
        """
        indices = range(block.start, block.stop)
        rngs, names = self.rngs(block.split, indices), _names(block.split, indices)
        if self.num_steps > 1:
            given = self.problem.sequences(self.grid, rngs, self.num_steps)
            channels = self.problem.num_channels[1]
            states = self._checked("sequences", given, names, self.num_steps + 1, channels)
            return states[:, 0], states[:, 1:].reshape(len(names), -1, *self.grid.shape)
        pair = self.problem.sample(self.grid, rngs)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(
                f"{self._place('sample')} gave {_described(pair)}; a pair of arrays, inputs and "
                "outputs, is expected"
            )
        (inputs, outputs), (num_inputs, num_outputs) = pair, self.num_channels
        return (
            self._checked("sample", inputs, names, num_inputs, side="inputs: "),
            self._checked("sample", outputs, names, num_outputs, side="outputs: "),
        )

    def inputs(self, split: str, indices: Sequence[int]) -> np.ndarray:
        """Returns input fields ``[N, in, *grid]`` in float32 without solving."""
        given = self.problem.draw_inputs(self.grid, self.rngs(split, indices))
        return self._checked("draw_inputs", given, _names(split, indices), self.num_channels[0])

    def initial_outputs(self) -> np.ndarray:
        """Returns the outputs ``[out, *grid]`` in float32 that stand in place of solutions."""
        given = self.problem.initial_outputs(self.grid)
        return self._checked("initial_outputs", given, self.problem.output_names)

    def trajectory(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """Returns consecutive states ``[num_steps + 1, C, *grid]`` in float32."""
        given = self.problem.trajectory(self.grid, rng, num_steps)
        names = [f"step {step}" for step in range(num_steps + 1)]
        return self._checked("trajectory", given, names, self.problem.num_channels[1])

    def check_alone(self, block: Block, fields: Arrays) -> None:
        """Checks that the last sample of a block is the same when it is drawn alone.

        Raises:
            UserError: If it differs by more than what solvers and rounding may change.
        """
        last = Block(block.split, block.stop - 1, block.stop)
        for together, alone in zip(fields, self.make(last), strict=True):
            distance = np.linalg.norm(together[-1] - alone[0])
            if distance > SAME_SAMPLE * np.linalg.norm(alone):
                place = self._place("sample" if self.num_steps == 1 else "sequences")
                raise UserError(
                    f"{place} gave another sample {last.start} of {block.split} when asked for it "
                    f"alone than among {len(block)}; a sample must depend on its own generator "
                    "alone, not on the others or on other random numbers"
                )

    def _place(self, hook: str) -> str:
        return f"problem '{self.problem.kind}': {type(self.problem).__name__}.{hook}"

    def _checked(
        self, hook: str, given: Any, names: Sequence[str], *channels: int, side: str = ""
    ) -> np.ndarray:
        """Returns what a hook gave in float32, if it is finite fields of the right shape.

        The shape is ``[len(names), *channels, *grid]``.
        """
        shape, place = (len(names), *channels, *self.grid.shape), f"{self._place(hook)} gave {side}"
        real = isinstance(given, np.ndarray) and given.dtype.kind in "fiub"
        if not real or given.shape != shape:
            inputs, outputs = self.problem.input_names, self.problem.output_names
            raise UserError(
                f"{place}{_described(given)}; real numbers of shape {list(shape)} are expected, "
                f"for the grid {self.grid}, input_names {inputs} and output_names {outputs}"
            )
        fields: np.ndarray = given.astype(np.float32)
        for name, field in zip(names, fields, strict=True):
            if not np.isfinite(field).all():
                steps = getattr(self.problem, "substeps", None)
                advice = f"; problem.substeps: {steps} may be too few" if steps else ""
                raise UserError(f"{place}numbers that are not finite, in {name}{advice}")
        return fields

    def rngs(self, split: str, indices: Iterable[int]) -> list[np.random.Generator]:
        """Returns the source of randomness of each of some samples of a split.

        Roll-outs start from those of a further split, ``trajectories``.
        """
        number = (*SPLITS, "trajectories").index(split)
        seeds = (np.random.SeedSequence(self.seed, spawn_key=(number, i)) for i in indices)
        return list(map(np.random.default_rng, seeds))

    def blocks(self, split: str, start: int, stop: int) -> list[Block]:
        """Divides the samples ``start`` to ``stop - 1`` of a split into blocks of bounded size."""
        size = max(1, min(BLOCK, BLOCK_POINTS // self.grid.size))
        return [Block(split, at, min(at + size, stop)) for at in range(start, stop, size)]


def _names(split: str, indices: Iterable[int]) -> list[str]:
    return [f"sample {index} of {split}" for index in indices]


def _described(value: Any) -> str:
    """Returns what a hook gave instead of an array of the right shape."""
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    return f"an array of shape {list(value.shape)} and type {value.dtype}"


def generate(recipe: Recipe, blocks: Sequence[Block]) -> Iterator[tuple[Block, Arrays]]:
    """Yields blocks with their samples, in order; those after the first on all cores if it pays."""
    if not blocks:
        return
    start = time.perf_counter()
    first = recipe.make(blocks[0])
    seconds = time.perf_counter() - start
    yield blocks[0], first
    blocks = blocks[1:]
    workers = min(num_cores(), len(blocks))
    if workers > 1 and seconds * len(blocks) > SERIAL_SECONDS and _can_travel(recipe):
        yield from _generate_in_pool(recipe, blocks, workers)
    else:
        yield from ((block, recipe.make(block)) for block in blocks)


def _can_travel(recipe: Recipe) -> bool:
    """Whether other processes can import the class of a problem, which notebooks do not allow."""
    module = type(recipe.problem).__module__
    if module == "__main__" and not hasattr(sys.modules[module], "__file__"):
        return False
    try:
        pickle.dumps(recipe)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _generate_in_pool(
    recipe: Recipe, blocks: Sequence[Block], workers: int
) -> Iterator[tuple[Block, Arrays]]:
    """Keeps a few blocks in progress for each worker, so that few finished ones wait in memory."""
    with _single_threaded_children():
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker)
        try:
            pending: deque[tuple[Block, Future[Arrays]]] = deque()
            for block in blocks:
                pending.append((block, pool.submit(recipe.make, block)))
                if len(pending) > 2 * workers:
                    done, future = pending.popleft()
                    yield done, future.result()
            for done, future in pending:
                yield done, future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process that generates samples has died: out of memory, or started "
                "from a script that lacks `if __name__ == '__main__':`"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Prepares a worker, which leaves signals to its parent and ends when the parent is gone."""
    keep_large_buffers()
    signals.ignore_in_worker()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Makes numerical libraries in processes started within the context use one thread each."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[THREADS]
        if before is not None:
            os.environ[THREADS] = before

"""``python -m multigrid.run experiments/poisson.yaml``: trains a ladder."""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from multigrid import signals
from multigrid.allocator import keep_large_buffers
from multigrid.config import Config, load_config
from multigrid.errors import UserError
from multigrid.results import RunFolder, write_json

log = logging.getLogger("multigrid")

EXAMPLES = """examples:
  python -m multigrid.run experiments/poisson.yaml
  python -m multigrid.run experiments/poisson.yaml name=wide model.width=64
  python -m multigrid.run experiments/poisson.yaml "schedule.epochs=[2,1,1,1]" --dry-run
  python -m multigrid.run experiments/poisson.yaml --resume
"""


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m multigrid.run",
        description="Trains a ladder of UNets from a coarse grid to a fine one.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", type=Path, help="experiment file (YAML)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace those of the file"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run; start it if there is none",
    )
    what.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    what.add_argument(
        "--dry-run", action="store_true", help="print ladder, schedule and cost, then stop"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Returns:
        0; 2 for what the user can mend; 75 if a signal has stopped the run after it was saved; 130
        on a second Ctrl-C.
    """
    options = build_parser().parse_intermixed_args(arguments)
    try:
        with signals.watched():
            config = load_config(options.experiment, options.overrides)
            if options.dry_run:
                _dry_run(config)
            else:
                _run(config, options.resume, options.overwrite)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except signals.Interrupted as signal:
        command = shlex.join([str(options.experiment), *options.overrides])
        print(
            f"stopped by {signal}, nothing is lost; continue with: python -m multigrid.run "
            f"{command} --resume",
            file=sys.stderr,
        )
        return signals.STATUS
    except KeyboardInterrupt:
        print("interrupted; continue with --resume", file=sys.stderr)
        return 130
    return 0


def _dry_run(config: Config) -> None:
    from multigrid.experiment import Experiment

    print(Experiment(config).describe())


def _run(config: Config, resume: bool, overwrite: bool) -> None:
    folder = RunFolder(Path(config.output.folder) / config.name)
    folder.check(config, resume, overwrite)
    keep_large_buffers()
    from multigrid.memory import is_out_of_memory

    try:
        with folder.lock:
            folder.occupy(config, resume, overwrite)
            _train(config, folder, resume, overwrite)
    except OSError as error:
        raise UserError(f"{error.filename or folder.path}: {error.strerror or error}") from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            "out of memory outside of a training step; data.memory=stream keeps samples on disk, "
            "a smaller schedule.batch_size makes the evaluation take fewer at once"
        ) from None


def _train(config: Config, folder: RunFolder, resume: bool, overwrite: bool) -> None:
    from multigrid.experiment import Experiment
    from multigrid.ladder import LadderRun
    from multigrid.report import write_report

    experiment = Experiment(config)
    run = LadderRun(experiment, folder)
    run.load()
    resume = resume and folder.config.exists()
    if not resume:
        folder.claim(config, overwrite)
    _start_logging(folder)
    log.info("%s", experiment.describe())
    summary = run.run(resume)
    write_report(run, summary)
    write_json(folder.summary, summary)


def _start_logging(folder: RunFolder) -> None:
    """Logs to the screen and, with times, to the run's log file."""
    try:
        file = _LogFile(folder.log, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder.log}: cannot be written: {error.strerror}") from None
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    screen = logging.StreamHandler(sys.stdout)
    screen.setFormatter(logging.Formatter("%(message)s"))
    log.setLevel(logging.INFO)
    log.handlers = [screen, file]


class _LogFile(logging.FileHandler):
    """A log file that is silent about a full disk; what cannot do without the disk tells."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Does nothing."""


if __name__ == "__main__":
    sys.exit(main())

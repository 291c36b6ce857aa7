"""Progressive-resolution training of UNet surrogates for PDEs.

What is listed here is meant to be used from Python; it is imported when it is first asked for, so
that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multigrid.api import configure, train
    from multigrid.config import Config
    from multigrid.errors import UserError
    from multigrid.grid import Grid, Hierarchy
    from multigrid.ladder.experiment import Experiment
    from multigrid.models.growth import UNetFamily
    from multigrid.models.transfer import transfer_weights
    from multigrid.models.unet import UNet
    from multigrid.problems.base import PDE, Symmetries
    from multigrid.registry import (
        register_block,
        register_callback,
        register_loss,
        register_metric,
        register_network,
        register_optimizer,
        register_problem,
        register_reader,
    )
    from multigrid.report import figures
    from multigrid.report.comparison import compare
    from multigrid.schedule import build_schedule
    from multigrid.surrogate import TrainedSurrogate, load
    from multigrid.training.callbacks import Callback

__version__ = "0.2.0"

__all__ = [
    "PDE",
    "Callback",
    "Config",
    "Experiment",
    "Grid",
    "Hierarchy",
    "Symmetries",
    "TrainedSurrogate",
    "UNet",
    "UNetFamily",
    "UserError",
    "build_schedule",
    "compare",
    "configure",
    "figures",
    "load",
    "register_block",
    "register_callback",
    "register_loss",
    "register_metric",
    "register_network",
    "register_optimizer",
    "register_problem",
    "register_reader",
    "train",
    "transfer_weights",
]

_PLACES = {
    "Callback": "training.callbacks",
    "Config": "config",
    "Experiment": "ladder.experiment",
    "Grid": "grid",
    "Hierarchy": "grid",
    "PDE": "problems.base",
    "Symmetries": "problems.base",
    "TrainedSurrogate": "surrogate",
    "UNet": "models.unet",
    "UNetFamily": "models.growth",
    "UserError": "errors",
    "build_schedule": "schedule",
    "compare": "report.comparison",
    "configure": "api",
    "figures": "report",
    "load": "surrogate",
    "register_block": "registry",
    "register_callback": "registry",
    "register_loss": "registry",
    "register_metric": "registry",
    "register_network": "registry",
    "register_optimizer": "registry",
    "register_problem": "registry",
    "register_reader": "registry",
    "train": "api",
    "transfer_weights": "models.transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'multigrid' has no attribute '{name}'")
    return getattr(import_module(f"multigrid.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

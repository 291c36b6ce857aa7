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
    from multigrid.schedule import build_schedule
    from multigrid.surrogate import TrainedSurrogate, load

__version__ = "0.2.0"

__all__ = [
    "Config",
    "Experiment",
    "Grid",
    "Hierarchy",
    "TrainedSurrogate",
    "UNet",
    "UNetFamily",
    "UserError",
    "build_schedule",
    "configure",
    "load",
    "train",
    "transfer_weights",
]

_PLACES = {
    "Config": "config",
    "Experiment": "ladder.experiment",
    "Grid": "grid",
    "Hierarchy": "grid",
    "TrainedSurrogate": "surrogate",
    "UNet": "models.unet",
    "UNetFamily": "models.growth",
    "UserError": "errors",
    "build_schedule": "schedule",
    "configure": "api",
    "load": "surrogate",
    "train": "api",
    "transfer_weights": "models.transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'multigrid' has no attribute '{name}'")
    return getattr(import_module(f"multigrid.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

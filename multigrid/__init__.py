"""Progressive-resolution training of UNet surrogates for PDEs.

What is listed here is meant to be used from Python; it is imported when it is first asked for, so
that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multigrid.config import Config as Config
    from multigrid.errors import UserError as UserError
    from multigrid.grid import Grid as Grid
    from multigrid.grid import Hierarchy as Hierarchy
    from multigrid.ladder.experiment import Experiment as Experiment
    from multigrid.models.growth import UNetFamily as UNetFamily
    from multigrid.models.transfer import transfer_weights as transfer_weights
    from multigrid.models.unet import UNet as UNet
    from multigrid.problems.base import PDE as PDE
    from multigrid.problems.base import Symmetries as Symmetries
    from multigrid.registry import register_block as register_block
    from multigrid.registry import register_callback as register_callback
    from multigrid.registry import register_loss as register_loss
    from multigrid.registry import register_metric as register_metric
    from multigrid.registry import register_network as register_network
    from multigrid.registry import register_optimizer as register_optimizer
    from multigrid.registry import register_problem as register_problem
    from multigrid.registry import register_reader as register_reader
    from multigrid.report import figures as figures
    from multigrid.report.comparison import compare as compare
    from multigrid.run import configure as configure
    from multigrid.run import train as train
    from multigrid.schedule import build_schedule as build_schedule
    from multigrid.surrogate import TrainedSurrogate as TrainedSurrogate
    from multigrid.surrogate import load as load
    from multigrid.training.callbacks import Callback as Callback

__version__ = "0.2.0"

REGISTERED = "block", "callback", "loss", "metric", "network", "optimizer", "problem", "reader"

_HOMES = {
    "config": ("Config",),
    "errors": ("UserError",),
    "grid": ("Grid", "Hierarchy"),
    "ladder.experiment": ("Experiment",),
    "models.growth": ("UNetFamily",),
    "models.transfer": ("transfer_weights",),
    "models.unet": ("UNet",),
    "problems.base": ("PDE", "Symmetries"),
    "registry": tuple(f"register_{noun}" for noun in REGISTERED),
    "report": ("figures",),
    "report.comparison": ("compare",),
    "run": ("configure", "train"),
    "schedule": ("build_schedule",),
    "surrogate": ("TrainedSurrogate", "load"),
    "training.callbacks": ("Callback",),
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'multigrid' has no attribute '{name}'")
    return getattr(import_module(f"multigrid.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

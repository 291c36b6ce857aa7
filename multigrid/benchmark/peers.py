"""Neural operators of other projects, to be trained beside ours.

They come from the package ``neuraloperator`` (extra ``peers``) with the settings of its own
examples for two-dimensional problems.
"""

from collections.abc import Callable
from importlib import import_module

from torch import nn

from multigrid.errors import UserError
from multigrid.grid import Grid


def fno(grid: Grid) -> nn.Module:
    """Returns a Fourier neural operator (Li et al., arXiv:2010.08895) for one field in and out."""
    return _models().FNO(
        n_modes=(32, 32), in_channels=1, out_channels=1, hidden_channels=32, n_layers=4
    )


def uno(grid: Grid) -> nn.Module:
    """Returns a U-shaped neural operator (Rahman et al., arXiv:2204.11127), like :func:`fno`."""
    return _models().UNO(
        in_channels=1,
        out_channels=1,
        hidden_channels=32,
        n_layers=5,
        uno_out_channels=[32, 64, 64, 64, 32],
        uno_n_modes=[[32, 32], [16, 16], [16, 16], [16, 16], [32, 32]],
        uno_scalings=[[1.0, 1.0], [0.5, 0.5], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0]],
        channel_mlp_skip="linear",
    )


PEERS: dict[str, Callable[[Grid], nn.Module]] = {"fno": fno, "uno": uno}


def _models():  # type: ignore[no-untyped-def]
    try:
        return import_module("neuralop.models")
    except ImportError:
        raise UserError(
            "the methods 'fno' and 'uno' need the package neuraloperator: "
            'pip install -c constraints.txt -e ".[peers]"'
        ) from None

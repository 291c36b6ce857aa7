"""Neural operators of other projects, to be trained beside ours.

They come from the package ``neuraloperator`` (extra ``peers``) with the settings of its own
examples for two-dimensional problems.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from multigrid.errors import UserError
from multigrid.grid import Grid


class WithCoordinates(nn.Module):
    """A network that is given the coordinates of the grid's points as two more input fields.

    What the package's own embedding does, but without tensors kept between calls; and the state
    dictionary holds nothing but tensors, where theirs holds settings as well.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, in, nx, ny]`` to ``[N, out, nx, ny]``."""
        axes = [torch.linspace(0, 1, n, device=x.device) for n in x.shape[2:]]
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        output: Tensor = self.network(torch.cat([x, coordinates.expand(len(x), -1, -1, -1)], 1))
        return output

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Returns the tensors by name."""
        state = super().state_dict(*args, **kwargs)
        return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def fno(grid: Grid, channels: tuple[int, int] = (1, 1)) -> nn.Module:
    """Returns a Fourier neural operator (Li et al., arXiv:2010.08895) for fields in and out."""
    network = _models().FNO(
        n_modes=(32, 32),
        in_channels=channels[0] + 2,
        out_channels=channels[1],
        hidden_channels=32,
        n_layers=4,
        positional_embedding=None,
    )
    return WithCoordinates(network)


def uno(grid: Grid) -> nn.Module:
    """Returns a U-shaped neural operator (Rahman et al., arXiv:2204.11127), like :func:`fno`."""
    network = _models().UNO(
        in_channels=3,
        out_channels=1,
        hidden_channels=32,
        n_layers=5,
        uno_out_channels=[32, 64, 64, 64, 32],
        uno_n_modes=[[32, 32], [16, 16], [16, 16], [16, 16], [32, 32]],
        uno_scalings=[[1.0, 1.0], [0.5, 0.5], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0]],
        channel_mlp_skip="linear",
        positional_embedding=None,
    )
    return WithCoordinates(network)


PEERS: dict[str, Callable[[Grid], nn.Module]] = {"fno": fno, "uno": uno}


def require_peers() -> None:
    """Raises UserError if the package is missing."""
    _models()


def _models():  # type: ignore[no-untyped-def]
    try:
        return import_module("neuralop.models")
    except ImportError:
        raise UserError(
            "the methods 'fno' and 'uno' need the package neuraloperator: "
            'pip install -c constraints.txt -e ".[peers]"'
        ) from None

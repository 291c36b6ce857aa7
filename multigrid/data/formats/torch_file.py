"""neuraloperator's ``.pt`` files: a dictionary of two tensors, loaded without running code."""

import pickle
import warnings
from pathlib import Path
from typing import Any

from multigrid.data.formats.base import ReaderOptions
from multigrid.data.formats.numpy_files import zip_members
from multigrid.data.formats.origin import require_honest_size
from multigrid.data.formats.pairs import MemoryPairFile, choose_names
from multigrid.errors import UserError, brief

SUFFIXES = (".pt", ".pth")


class TorchPair(MemoryPairFile):
    """Two tensors ``[N, ...]`` of a dictionary saved by torch; mapped where possible."""

    reader = "neuraloperator"
    expects = ".pt with a dictionary of tensors {'x': ..., 'y': ...}"

    @classmethod
    def matches(cls, path: Path, options: ReaderOptions) -> bool:
        """Whether it is an archive saved by torch, or at least called so."""
        members = zip_members(path)
        if members is not None:
            return any(name.rpartition("/")[2] == "data.pkl" for name in members)
        return path.suffix in SUFFIXES

    @property
    def names(self) -> tuple[str, str]:
        """Keys of the two tensors."""
        return self._names

    def _open(self) -> tuple[Any, Any]:
        loaded = self._unpickle()
        if not isinstance(loaded, dict):
            raise UserError(
                f"{self.path}: holds a {type(loaded).__name__}, but a dictionary of tensors is "
                "needed"
            )
        keys = {str(key): value for key, value in loaded.items()}
        self._names = choose_names(self.path, keys, self.options, lambda: ", ".join(keys))
        return self._array(self._names[0], keys), self._array(self._names[1], keys)

    def _unpickle(self) -> Any:
        import torch  # only this format needs it

        try:
            mmap = zip_members(self.path) is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickles that are refused right away
                return torch.load(str(self.path), map_location="cpu", weights_only=True, mmap=mmap)
        except UserError:
            raise
        except pickle.UnpicklingError:
            raise UserError(
                f"{self.path}: holds Python objects besides tensors, or no tensors at all, which "
                "is refused, as opening them could run a program"
            ) from None
        except Exception as error:  # a damaged archive fails in torch in any way
            raise UserError(
                f"{self.path}: damaged or truncated file of torch ({brief(error)})"
            ) from None

    def _array(self, name: str, keys: dict[str, Any]) -> Any:
        import torch

        tensor = keys[name]
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise UserError(
                f"{self.path}: '{name}' is a {type(tensor).__name__}, but a dense tensor is needed"
            )
        stored = self.path.stat().st_size
        require_honest_size(self.path, name, tensor.nbytes, stored)
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()  # a type that NumPy does not know
        return tensor.detach().resolve_conj().resolve_neg().numpy()

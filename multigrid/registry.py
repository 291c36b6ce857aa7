"""Names that experiment files use for classes and functions, and how users add their own.

A file that an experiment lists under ``plugins`` registers what it defines. What is built in does
so when its module is imported, which a registry does when it is first asked for something that it
does not know yet. Imports no torch.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from multigrid.errors import UserError, brief, nearest
from multigrid.files import path_of
from multigrid.options import with_options

T = TypeVar("T")


class Registry:
    """Classes or functions by name.

    Args:
        noun: What they are, for error messages.
        home: The module whose import registers the built-in ones.
        listed: Names of built-in ones that are valid before that import, which needs torch.
        attribute: The attribute of a registered class that is set to its name, if any.
        passed: How many arguments they are called with; further ones are options.
        elsewhere: Names of parameters that are no options, as other settings say what they are.
        internal: The same of built-in ones alone.
    """

    def __init__(
        self,
        noun: str,
        home: str,
        listed: tuple[str, ...] = (),
        attribute: str | None = None,
        passed: int = 0,
        elsewhere: Collection[str] = (),
        internal: Collection[str] = (),
    ) -> None:
        self.noun = noun
        self._home = home
        self._listed = listed
        self._attribute = attribute
        self._passed = passed
        self._elsewhere = elsewhere
        self._internal = internal
        self._items: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers a class or function under a name.

        Raises:
            UserError: If the name is taken by something that is defined elsewhere.
        """

        def decorator(item: T) -> T:
            present = self._items.get(name)
            if present is not None and place_of(present) != place_of(item):
                raise UserError(
                    f"the {self.noun} '{name}' is registered already, by {place_of(present)}"
                )
            self._items[name] = item
            if self._attribute is not None:
                setattr(item, self._attribute, name)
            return item

        return decorator

    def get(self, name: str) -> Any:
        """Returns what is registered under a name.

        Raises:
            UserError: If there is nothing; the sentence has the nearest valid name.
        """
        if name not in self._items and name not in (allowed := self.names()):
            raise UserError(
                f"there is no {self.noun} '{name}'; there are {', '.join(allowed)}"
                f"{nearest(name, allowed)}"
            )
        return self._items[name]

    def configured(self, name: str, options: Mapping[str, Any], key: str) -> Any:
        """Returns what is registered under a name, with options given by keyword.

        Raises:
            UserError: If it does not take one of them, or lacks one; ``key`` is where they stand.
        """
        internal = self._internal if name in self._listed else ()
        reserved = (*self._elsewhere, *internal)
        what = f"the {self.noun} '{name}'"
        return with_options(self.get(name), options, self._passed, reserved, what, key)

    def names(self) -> tuple[str, ...]:
        """Returns all names, sorted."""
        import_module(self._home)
        return tuple(sorted({*self._listed, *self._items}))

    def __contains__(self, name: object) -> bool:
        return name in self._listed or name in self._items or name in self.names()


def place_of(item: Any) -> str:
    """Returns where a class, a function or an object's class is defined, as ``module.name``.

    It is the same when the module is imported again.
    """
    item = item.func if isinstance(item, partial) else item
    item = item if hasattr(item, "__qualname__") else type(item)
    return f"{item.__module__}.{item.__qualname__}"


PROBLEMS = Registry("problem", "multigrid.problems", attribute="kind")
LOSSES = Registry(
    "loss",
    "multigrid.training.losses",
    ("rel_l2", "rel_l1", "rel_h1", "mse"),
    passed=2,
    elsewhere=("scale",),
)
METRICS = Registry("metric", "multigrid.metrics")
OPTIMIZERS = Registry(
    "optimizer",
    "multigrid.training.optimizers",
    ("muon", "adamw"),
    passed=1,
    elsewhere=("lr", "betas", "weight_decay"),
    internal=("dtype", "processes"),
)
READERS = Registry("reader", "multigrid.data.formats")
CALLBACKS = Registry("callback", "multigrid.training.callbacks", ("mlflow", "wandb"))
BLOCKS = Registry(
    "block", "multigrid.models.layers", ("residual",), passed=4, internal=("activation",)
)
NETWORKS = Registry(
    "network",
    "multigrid.models.growth",
    ("unet",),
    passed=1,
    elsewhere=("in_channels", "out_channels"),
)

register_problem = PROBLEMS.register
register_loss = LOSSES.register
register_metric = METRICS.register
register_optimizer = OPTIMIZERS.register
register_reader = READERS.register
register_callback = CALLBACKS.register
register_block = BLOCKS.register
register_network = NETWORKS.register


def import_plugin(name: str) -> None:
    """Imports a module or a Python file that registers what a user adds.

    A file, whose name ends in ``.py``, is imported under its name from its folder, which is added
    to the end of ``sys.path``, so that worker processes can import it as well.
    """
    module = name
    if name.endswith(".py"):
        path = path_of(name).resolve()
        module = path.stem
        if not path.is_file():
            raise UserError(f"plugins: {name}: there is no such file")
        if not module.isidentifier():
            raise UserError(f"plugins: {name}: '{module}' is not a name that Python can import")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        invalidate_caches()
        spec = find_spec(module)
        if spec is None or spec.origin is None or Path(spec.origin).resolve() != path:
            raise UserError(f"plugins: {name}: there is another module '{module}'; rename the file")
    try:
        import_module(module)
    except UserError as error:
        raise UserError(f"plugins: {name}: {error}") from None
    except Exception as error:
        raise UserError(
            f"plugins: {name}: cannot be imported: {type(error).__name__}: {brief(error)}"
        ) from error

"""Names that experiment files use for classes and functions, and how users add their own.

A file of the user's registers what it defines, and an experiment names the file:

    # my_pde.py
    from multigrid import register_problem

    @register_problem("my_pde")
    class MyPDE(PDE): ...

    # experiment.yaml
    plugins: [my_pde.py]
    problem: {kind: my_pde}

Imports no torch. What is built in registers when its module is imported, which a registry does
when it is first asked for something that it does not know yet.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from multigrid.errors import UserError, nearest

T = TypeVar("T")


class Registry:
    """Classes or functions by name.

    Args:
        noun: What they are, for error messages.
        home: The module whose import registers the built-in ones.
        listed: Names of built-in ones that are valid without importing their module, as it
            imports torch.
        attribute: The attribute of a registered class that is set to its name, if any.
    """

    def __init__(
        self,
        noun: str,
        home: str | None = None,
        listed: tuple[str, ...] = (),
        attribute: str | None = None,
    ) -> None:
        self.noun = noun
        self._home = home
        self._listed = listed
        self._attribute = attribute
        self._items: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers a class or function under a name.

        Raises:
            UserError: If the name is taken by something that is defined elsewhere.
        """

        def decorator(item: T) -> T:
            present = self._items.get(name)
            if present is not None and _place(present) != _place(item):
                raise UserError(
                    f"the {self.noun} '{name}' is registered already, by {_place(present)}"
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
        if name not in self._items:
            self._import_home()
        if name not in self._items:
            allowed = self.names()
            raise UserError(
                f"there is no {self.noun} '{name}'; there are {', '.join(allowed)}"
                f"{nearest(name, allowed)}"
            )
        return self._items[name]

    def names(self) -> tuple[str, ...]:
        """Returns all names, sorted."""
        self._import_home()
        return tuple(sorted(self._items))

    def __contains__(self, name: object) -> bool:
        return name in self._listed or name in self._items or name in self.names()

    def _import_home(self) -> None:
        if self._home is not None:
            import_module(self._home)


def _place(item: Any) -> str:
    """Returns where something is defined, the same when its module is imported again."""
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', item)}"


PROBLEMS = Registry("problem", "multigrid.problems", attribute="kind")
LOSSES = Registry("loss", "multigrid.training.losses", ("rel_l2", "rel_l1", "rel_h1", "mse"))
METRICS = Registry("metric", "multigrid.metrics")
OPTIMIZERS = Registry("optimizer", "multigrid.training.optimizers", ("muon", "adamw"))
READERS = Registry("reader", "multigrid.data.formats")
CALLBACKS = Registry("callback", "multigrid.training.callbacks")
BLOCKS = Registry("block", "multigrid.models.layers")

register_problem = PROBLEMS.register
register_loss = LOSSES.register
register_metric = METRICS.register
register_optimizer = OPTIMIZERS.register
register_reader = READERS.register
register_callback = CALLBACKS.register
register_block = BLOCKS.register

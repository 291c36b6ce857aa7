"""The suites: which methods are compared on which problem, and with which settings."""

from dataclasses import dataclass, field

SEARCH_SEED = 0


@dataclass(frozen=True)
class Method:
    """A way of training, as changes to the suite's experiment.

    Attributes:
        name: Short name, used for folders and in tables.
        label: What it is, for the legend.
        overrides: Settings ``key=value``.
        rates: Learning rates to search before the runs that count; none for no search.
        search_overrides: Further settings of the runs of the search, a smaller budget above all.
        seeds: How many of the suite's seeds to run.
    """

    name: str
    label: str
    overrides: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()
    search_overrides: tuple[str, ...] = ()
    seeds: int = 100


@dataclass(frozen=True)
class Suite:
    """Methods that are compared on the same data.

    Attributes:
        experiment: Experiment file.
        overrides: Settings of all methods.
        seeds: Seeds of initialisation, data order and augmentation.
        methods: The methods; the first is the ladder, the second direct training.
    """

    experiment: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[Method, ...] = field(default_factory=tuple)


def _equal_time() -> tuple[Method, ...]:
    """Returns the ladder, and direct training with about as much time."""
    single = ("schedule.cycle=single", "schedule.batch_size=16", "schedule.epochs=6")
    rates = (1e-3, 2e-3, 4e-3, 8e-3)
    return (
        Method("ladder", "ladder (ours)"),
        Method("direct", "same network, finest grid only", single, rates),
    )


def _methods(
    epochs: int, search_epochs: int, classic_epochs: str, resize_epochs: str
) -> tuple[Method, ...]:
    single = ("schedule.cycle=single", f"schedule.epochs={epochs}", "schedule.batch_size=16")
    rates = (2e-3, 5e-3, 1e-2, 2e-2)
    search = (f"schedule.epochs={search_epochs}",)
    classic = ("model.form=classic", "model.width={outer: 8, max: 256}")
    return (
        Method("ladder", "ladder (ours)"),
        Method("direct", "same network, finest grid only", single, rates, search),
        Method(
            "recipe",
            "classic UNet, doubling widths, fresh outer layers",
            (*classic, f"schedule.epochs={classic_epochs}", "schedule.transferred_ratio=1.0"),
            seeds=1,
        ),
        Method(
            "resize",
            "same network on all grids",
            ("model.growth=false", f"schedule.epochs={resize_epochs}"),
            seeds=1,
        ),
        Method(
            "classic",
            "classic UNet, finest grid only",
            (*single, *classic),
            rates,
            search,
            seeds=1,
        ),
    )


SUITES = {
    "poisson_equal_time": Suite("experiments/poisson.yaml", (), (0,), _equal_time()),
    "poisson_128": Suite(
        "experiments/poisson.yaml",
        ("data.train=256", "data.validation=64", "data.test=64"),
        (0, 1, 2),
        _methods(60, 12, "[60, 30, 15, 8]", "[120, 32, 8, 4]"),
    ),
}

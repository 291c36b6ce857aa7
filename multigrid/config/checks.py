"""Checks of an experiment that concern several keys at once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from multigrid.config.experiment import Config
from multigrid.config.section import shown
from multigrid.errors import UserError
from multigrid.grid import Grid, Hierarchy
from multigrid.registry import PROBLEMS
from multigrid.tables import counted, si

UNET_SETTINGS = (
    "form",
    "width",
    "block",
    "activation",
    "num_blocks",
    "min_size",
    "depth",
    "growth",
    "normalization",
)
"""Settings of the section ``model`` that other networks than UNets do not see."""


def check_config(config: Config, saved: bool = False) -> None:
    """Raises a UserError for the first thing that is wrong with several keys at once.

    Checks that depend on the centering wait until the user's files have been opened, if need be.
    A ``saved`` configuration may have settings without effect, as earlier versions took them.
    """
    config.shapes()
    if config.is_settled:
        _check_grids(config, config.hierarchy())
    _check_budget(config)
    _check_levels(config)
    if config.output.num_predictions > config.data.test:
        what = f"{config.output.num_predictions} is more than data.test, {config.data.test}"
        raise UserError(f"output.num_predictions: {what}")
    _require_defaults(config, _missing_hooks(config))
    if not saved:
        _require_defaults(config, _contradictions(config))
        _check_mask(config)
    _check_transfer(config)
    _check_extra_tests(config)


def check_handed_in(config: Config, what: str) -> None:
    """Raises a UserError for the first setting that a thing handed in from Python ignores.

    ``what`` is ``loss``, ``network`` or ``optimizer``.
    """
    keys = [f"{what}.name", f"{what}.options"]
    if what == "network":
        keys = [f"model.{name}" for name in ("network", *UNET_SETTINGS)]
    why = f"has no effect beside {what}= from Python"
    _require_defaults(config, ((key, True, why) for key in keys))


def _check_grids(config: Config, hierarchy: Hierarchy) -> None:
    finest = hierarchy.finest
    config.widths(hierarchy)
    padding, axes = config.model.padding, "xyz"[: finest.ndim]
    if isinstance(padding, dict) and "".join(sorted(padding)) != axes:
        raise UserError(f"model.padding: {shown(padding)} must have the axes {', '.join(axes)}")
    by_axis = padding if isinstance(padding, dict) else dict.fromkeys(axes, padding)
    for number, axis in enumerate(axes):
        if by_axis[axis] == "periodic" and not finest.is_open_along(number):
            raise UserError(
                "model.padding: 'periodic' needs grids without the right boundary point, but "
                f"{finest} nodes have it; use even sizes"
            )
    if config.files is None:
        problem = config.pde()
        problem.check_grids(hierarchy.levels)
        _check_size(config, sum(problem.num_channels), finest)
    at_finest = config.model.fields == "folded" or config.schedule.cycle == "single"
    level = len(hierarchy.levels) - 1 if at_finest else 0
    coarsest = hierarchy.levels[level]
    num_modes, largest = getattr(config.problem, "num_modes", 0), min(coarsest.num_sines)
    exact = config.files is None and config.pde().symmetries.mode_shifts
    if config.data.mode_shifts and exact and num_modes > largest:
        raise UserError(
            f"data.mode_shifts: levels[{level}], {coarsest}, tells apart {largest} sine modes "
            f"only, fewer than problem.num_modes, {num_modes}; it must be 0"
        )


def _check_size(config: Config, num_fields: int, finest: Grid) -> None:
    data = config.data
    count = data.validation + data.test + (data.train if config.labelled else 0)
    size = 4.0 * count * num_fields * finest.size
    folder = Path(data.folder).absolute()
    disk = next(shutil.disk_usage(f).total for f in (folder, *folder.parents) if f.exists())
    if size > disk:
        raise UserError(
            f"data: {count} samples of {num_fields} fields on {finest} would take {si(size)}B, but "
            f"the disk of '{data.folder}' has {si(disk)}B in all; lower data.train, data.test "
            "or the finest level"
        )


def _check_budget(config: Config) -> None:
    budget = config.schedule.budget
    if budget is None:
        return
    if config.schedule.epochs != "auto":
        raise UserError("schedule.budget: is for 'schedule.epochs: auto' only; leave one out")
    if (budget.work_units is None) == (budget.seconds is None):
        raise UserError("schedule.budget: give either 'work_units' or 'seconds'")
    if budget.error is not None and not config.is_automatic:
        raise UserError(
            "schedule.budget.error: is for schedule.cycle 'half-v' with the growing pyramids of "
            "the section 'model' only; leave it out"
        )


def _check_levels(config: Config) -> None:
    num_levels = len(config.levels)
    for section in ("schedule", "parallel"):
        for key, value in getattr(config, section):
            if isinstance(value, list) and len(value) != num_levels:
                raise UserError(
                    f"{section}.{key}: the list has {counted(len(value), 'entry', 'entries')}, "
                    f"but there {'is' if num_levels == 1 else 'are'} "
                    f"{counted(num_levels, 'level')}"
                )
    train = config.data.train
    settings = config.samples(), config.per_level("batch_size"), config.per_level("accumulate")
    for k, (samples, batch, accumulate) in enumerate(zip(*settings, strict=True)):
        if samples > train:
            raise UserError(f"levels[{k}].samples: {samples} is more than data.train, {train}")
        if batch > samples:
            what = f"{batch} is more than the {samples} training samples of level {k}"
            raise UserError(f"schedule.batch_size: {what}")
        if accumulate > batch:
            what = f"a batch of {batch} cannot be taken in {accumulate} parts on level {k}"
            raise UserError(f"parallel.accumulate: {what}")


Clashes = Iterator[tuple[str, bool, str]]
"""Keys that must have their defaults where something holds, and why."""


def _require_defaults(config: Config, clashes: Clashes) -> None:
    for key, clash, why in clashes:
        section, field = key.split(".")
        values = getattr(config, section)
        value, default = getattr(values, field), type(values).model_fields[field].default
        if clash and value != default:
            raise UserError(f"{key}: {shown(value)} {why}; it must be {shown(default)}")


def _missing_hooks(config: Config) -> Clashes:
    """Yields what the problem would have to offer."""
    problem = config.problem_class if config.files else config.pde()
    classes = [PROBLEMS.get(name) for name in PROBLEMS.names()]
    for key, used, hook, what in (
        ("loss.name", not config.labelled, "energy_loss", "the energy"),
        ("loss.residual", True, "discrete_equation", "the residual"),
    ):
        able = ", ".join(cls.kind for cls in classes if cls.has(hook))
        why = f"needs {what}, which the problems {able} have, but not '{config.kind}'"
        yield key, used and not problem.has(hook), why
    able = " and ".join(cls.kind for cls in classes if cls.symmetries.mode_shifts)
    why = f"is for the problems {able} only, not for '{config.kind}'"
    yield "data.mode_shifts", not problem.symmetries.mode_shifts, why
    able = ", ".join(cls.kind for cls in classes if cls.symmetries.linear)
    linear = (config.files.exact() if config.files else problem.symmetries).linear
    why = (
        f"is for linear problems: {able}, or files with 'linear' in problem.symmetries, not for "
        f"'{config.kind}'"
    )
    yield "model.activation", not linear, why
    evolves = config.files is not None or problem.time_dependent
    why = f"is for problems in time, but '{config.kind}' does not depend on it"
    for key in ("data.rollout_steps", "rollout_training.steps", "rollout_training.noise"):
        yield key, not evolves, why


def _contradictions(config: Config) -> Clashes:
    """Yields what other settings exclude or make ineffective."""
    transfer, budget = config.transfer, config.schedule.budget
    fsdp, files = config.parallel.strategy == "fsdp", config.files is not None
    timed = budget is not None and budget.seconds is not None
    folded, rolled_out = config.model.fields == "folded", config.rollout_training.is_used
    masked = config.files is not None and config.files.mask is not None
    for key, clash, other in (
        ("transfer.featurize", fsdp, "parallel.strategy 'fsdp'"),
        ("compute.compile", fsdp, "parallel.strategy 'fsdp'"),
        ("compute.compile", transfer.featurize, "transfer.featurize true"),
        ("compute.compile", timed, "schedule.budget seconds"),
        ("rollout_training.steps", fsdp, "parallel.strategy 'fsdp'"),
        ("rollout_training.steps", transfer.featurize, "transfer.featurize true"),
        ("rollout_training.noise", transfer.featurize, "transfer.featurize true"),
        ("rollout_training.steps", not config.labelled, "loss.name 'energy'"),
        ("data.noise", transfer.featurize, "transfer.featurize true"),
        ("data.noise", rolled_out, "rollout_training, which has its own noise"),
        ("data.noise", masked, "problem.mask"),
        ("model.growth", folded, "model.fields 'folded'"),
        ("data.extra_tests", files, "samples from files, which cannot be regenerated"),
    ):
        yield key, clash, f"is not possible with {other}"
    single = config.rollout_training.curriculum == [1]
    yield "rollout_training.method", single, "has no effect with rollout_training.steps 1"
    block = config.model.block
    yield "model.activation", block != "residual", f"has no effect on model.block '{block}'"
    yield "loss.options", not config.labelled, "has no effect on loss.name 'energy'"
    for name in UNET_SETTINGS:
        own = config.model.network != "unet"
        yield f"model.{name}", own, f"has no effect on model.network '{config.model.network}'"

    gradual, rules = transfer.mode == "gradual", transfer.rules
    waits = gradual and transfer.unfreeze == "plateau"
    waits = waits or any(rule.freeze == "plateau" for rule in rules)
    learns = transfer.mode != "features" or any(rule.freeze not in (None, True) for rule in rules)
    ratio = learns and transfer.mode != "full"
    mode = f"transfer.mode '{transfer.mode}'"
    for key, used, other in (
        ("data.time", files, "generated samples"),
        ("data.seed", not files, "samples from files"),
        ("model.min_size", config.model.depth is None, f"model.depth {config.model.depth}"),
        ("transfer.rename", config.checkpoints.load is not None, "checkpoints.load null"),
        ("schedule.transferred_ratio", ratio, mode),
        ("transfer.decay", learns, mode),
        ("transfer.unfreeze", gradual, mode),
        ("transfer.patience", waits, "unfreezing by epochs, as nothing waits for a plateau"),
        ("data.mode_shifts", config.data.augmentation == "auto", "data.augmentation 'none'"),
        ("recovery.factor", config.recovery.tries > 0, "recovery.tries 0"),
    ):
        yield key, not used, f"has no effect beside {other}"


def _check_mask(config: Config) -> None:
    """Checks that augmentation leaves masks as they are: it may move them, but no more."""
    if config.files:
        masked, exact = config.files.mask is not None, config.files.exact()
    else:
        problem = config.pde()
        masked, exact = problem.mask_channel is not None, problem.symmetries
    names = [name for name in ("linear", "odd") if getattr(exact, name)]
    mirrored = exact.reflections or exact.rotations
    names += ["mirror_signs"] * (mirrored and min(exact.mirror_signs) < 0)
    if masked and names and config.data.augmentation == "auto":
        raise UserError(
            f"data.augmentation: 'auto' would mix or negate the masks of samples with the fields, "
            f"as the symmetries have {' and '.join(names)}; leave that out, or set it to 'none'"
        )


def _check_transfer(config: Config) -> None:
    section = config.transfer
    for old, new in section.rename.items():
        if old.count("*") != new.count("*"):
            raise UserError(f"transfer.rename: '{old}' and '{new}' must have as many '*'")
    if section.featurize and config.data.augmentation != "none":
        raise UserError(
            f"data.augmentation: '{config.data.augmentation}' makes new samples in every step, but "
            "with transfer.featurize features are computed once; it must be 'none'"
        )
    for index, rule in enumerate(section.rules):
        if rule.weights == "new" and rule.freeze not in (None, False):
            raise UserError(
                f"transfer.rules[{index}].freeze: only transferred weights can be frozen, so "
                "'weights' must be 'transferred' or 'all'"
            )


def _check_extra_tests(config: Config) -> None:
    for name, changes in config.data.extra_tests.items():
        try:
            problem, variant = config.pde(), config.pde(changes)
            if (variant.ndim, variant.num_channels) != (problem.ndim, problem.num_channels):
                raise UserError("it must leave the number of axes and of fields as they are")
            variant.check_grids(config.hierarchy().levels)
            if not name.isprintable():
                raise UserError("the name has control characters")
        except UserError as error:
            raise UserError(f"data.extra_tests.{name}: {error}") from None

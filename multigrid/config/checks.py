"""Checks of an experiment that concern several keys at once."""

import shutil
from pathlib import Path

from multigrid.config.experiment import Config
from multigrid.errors import UserError
from multigrid.grid import Grid
from multigrid.registry import PROBLEMS
from multigrid.tables import si

BY_LEVEL = (
    "schedule.epochs",
    "schedule.batch_size",
    "schedule.learning_rate",
    "schedule.transferred_ratio",
    "schedule.warmup",
    "parallel.accumulate",
    "parallel.checkpoint_activations",
)


def check_config(config: Config) -> None:
    """Checks what concerns several keys at once.

    Checks that depend on the centering wait until the user's files have been opened, if need be.

    Raises:
        UserError: With one sentence for the first thing that is wrong.
    """
    config.shapes()
    files = config.files
    if files is not None and (files.file is None) == (files.files is None):
        raise UserError("problem: give either 'file' or 'files'")
    if config.is_settled:
        _check_grids(config)
        _check_size(config)
    _check_budget(config)
    _check_levels(config)
    if config.output.num_predictions > config.data.test:
        raise UserError(
            f"output.num_predictions: {config.output.num_predictions} is more than data.test, "
            f"{config.data.test}"
        )
    _check_loss(config)
    _check_pairs(config)
    _check_transfer(config)
    _check_tests(config)
    _check_effect(config)


def _check_grids(config: Config) -> None:
    """Checks what depends on the grids of levels and scales."""
    hierarchy = config.hierarchy()
    config.widths(hierarchy)
    if config.model.padding == "periodic" and not hierarchy.finest.is_open:
        raise UserError(
            "model.padding: 'periodic' needs grids without the right boundary point, but "
            f"{hierarchy.finest} nodes have it; use even sizes"
        )
    if config.files is None:
        config.pde().check_grids(hierarchy.levels)
    if config.data.mode_shifts:
        folded = config.model.fields == "folded"
        _check_mode_shifts(config, hierarchy.levels[-1 if folded else 0])


def _check_size(config: Config) -> None:
    """Checks that the disk can hold the samples that would be generated."""
    if config.files is not None:
        return
    data, finest = config.data, config.hierarchy().finest
    num_fields = sum(config.pde().num_channels)
    count = data.validation + data.test + (data.train if config.labelled else 0)
    size = 4.0 * count * num_fields * finest.size
    folder = Path(data.folder).absolute()
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).total
    if size > disk:
        raise UserError(
            f"data: {count} samples of {num_fields} fields on {finest} would take {si(size)}B, but "
            f"the disk of '{data.folder}' has {si(disk)}B in all; lower data.train, data.test "
            "or the finest level"
        )


def _check_levels(config: Config) -> None:
    """Checks the settings that go by level."""
    num_levels = len(config.levels)
    for name in BY_LEVEL:
        section, key = name.split(".")
        value = getattr(getattr(config, section), key)
        if isinstance(value, list) and len(value) != num_levels:
            raise UserError(
                f"{name}: the list has {len(value)} entries, but there are {num_levels} levels"
            )
    for index, samples in enumerate(config.samples()):
        if samples > config.data.train:
            raise UserError(
                f"levels[{index}].samples: {samples} is more than data.train, {config.data.train}"
            )
        batch_size = config.per_level("batch_size")[index]
        if batch_size > samples:
            raise UserError(
                f"schedule.batch_size: {batch_size} is more than the {samples} training samples "
                f"of level {index}"
            )
        accumulate = config.per_level("accumulate")[index]
        if accumulate > batch_size:
            raise UserError(
                f"parallel.accumulate: a batch of {batch_size} cannot be taken in {accumulate} "
                f"parts on level {index}"
            )


def _check_budget(config: Config) -> None:
    """Checks that a budget is given in one unit, and only where it is used."""
    budget = config.schedule.budget
    if budget is None:
        return
    if config.schedule.epochs != "auto":
        raise UserError(
            "schedule.budget: is for 'schedule.epochs: auto' only; leave one of the two out"
        )
    if (budget.work_units is None) == (budget.seconds is None):
        raise UserError("schedule.budget: give either 'work_units' or 'seconds'")


def _check_loss(config: Config) -> None:
    """Checks that the problem has what is to be minimised."""
    problem = config.problem_class
    for key, used, hook, what in (
        ("loss.name", not config.labelled, "energy_loss", "'energy'"),
        ("loss.residual", config.loss.residual > 0, "discrete_equation", "the residual"),
    ):
        if used and not problem.has(hook):
            able = [name for name in PROBLEMS.names() if PROBLEMS.get(name).has(hook)]
            must = "be another loss" if key == "loss.name" else "be 0"
            raise UserError(
                f"{key}: {what} is available for the problems {', '.join(able)} only; for "
                f"'{config.kind}' it must {must}"
            )


def _check_pairs(config: Config) -> None:
    """Checks switches that other settings exclude."""
    fsdp, budget = config.parallel.strategy == "fsdp", config.schedule.budget
    featurize, compiled = config.transfer.featurize, config.compute.compile
    timed = budget is not None and budget.seconds is not None
    fixed = config.model.fields == "folded" and not config.model.growth
    for clash, key, value, other, must in (
        (fsdp and featurize, "transfer.featurize", "true", "parallel.strategy 'fsdp'", "false"),
        (fsdp and compiled, "compute.compile", "true", "parallel.strategy 'fsdp'", "false"),
        (featurize and compiled, "compute.compile", "true", "transfer.featurize true", "false"),
        (timed and compiled, "compute.compile", "true", "schedule.budget seconds", "false"),
        (fixed, "model.growth", "false", "model.fields 'folded'", "true"),
    ):
        if clash:
            raise UserError(f"{key}: {value} is not possible with {other}; it must be {must}")


def _check_transfer(config: Config) -> None:
    """Checks that no setting of a transfer contradicts another one or is without effect."""
    section = config.transfer
    for old, new in section.rename.items():
        if old.count("*") != new.count("*"):
            raise UserError(f"transfer.rename: '{old}' and '{new}' must have as many '*'")
    if section.rename and config.checkpoints.load is None:
        raise UserError("transfer.rename: there are no names without checkpoints.load")
    if isinstance(section.unfreeze, list) and section.unfreeze != sorted(
        section.unfreeze or [1, 0]
    ):
        raise UserError(
            f"transfer.unfreeze: {section.unfreeze} must be a list of rising numbers of epochs"
        )
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


def _check_effect(config: Config) -> None:
    """Checks that no setting is made ineffective by others."""
    section, rules = config.transfer, config.transfer.rules
    mode = f"transfer.mode '{section.mode}'"
    waits = section.mode == "gradual" and section.unfreeze == "plateau"
    waits = waits or any(rule.freeze == "plateau" for rule in rules)
    learns = section.mode != "features" or any(rule.freeze not in (None, True) for rule in rules)
    for key, used, beside in (
        ("schedule.transferred_ratio", section.mode != "full" and learns, mode),
        ("transfer.decay", learns, mode),
        ("transfer.unfreeze", section.mode == "gradual", mode),
        ("transfer.patience", waits, "unfreezing by epochs, as nothing waits for a plateau"),
        ("data.mode_shifts", config.data.augmentation == "auto", "data.augmentation 'none'"),
        (
            "schedule.stop_at_interpolation_error",
            config.model.fields == "restricted",
            "model.fields 'folded'",
        ),
        ("schedule.warmup", config.optimizer.decay != "one-cycle", "optimizer.decay 'one-cycle'"),
        ("recovery.factor", config.recovery.tries > 0, "recovery.tries 0"),
    ):
        name, field = key.split(".")
        values = getattr(config, name)
        value, default = getattr(values, field), type(values).model_fields[field].default
        if not used and value != default:
            raise UserError(
                f"{key}: {value} has no effect beside {beside}; it must be {default} (the default)"
            )


def _check_tests(config: Config) -> None:
    """Checks roll-outs and further test sets."""
    if config.files is None and config.data.time != type(config.data.time)():
        raise UserError("data.time: says how trajectories in files are used; it has no effect here")
    evolves = config.files is not None or config.problem_class.time_dependent
    if config.data.rollout_steps and not evolves:
        raise UserError(
            f"data.rollout_steps: the problem '{config.kind}' does not depend on time; it must be 0"
        )
    for name, changes in config.data.extra_tests.items():
        if config.files is not None:
            raise UserError("data.extra_tests: samples from files cannot be regenerated")
        try:
            problem, variant = config.pde(), config.pde(changes)
            if (variant.ndim, variant.num_channels) != (problem.ndim, problem.num_channels):
                raise UserError("it must leave the number of axes and of fields as they are")
            variant.check_grids(config.hierarchy().levels)
        except UserError as error:
            raise UserError(f"data.extra_tests.{name}: {error}") from None


def _check_mode_shifts(config: Config, coarsest: Grid) -> None:
    """Checks that modes are shifted for problems only where, and on grids on which, it is exact."""
    problem = config.problem_class
    if not problem.symmetries.mode_shifts:
        able = [name for name in PROBLEMS.names() if PROBLEMS.get(name).symmetries.mode_shifts]
        raise UserError(
            f"data.mode_shifts: modes can be shifted in the problems {' and '.join(able)} only; "
            f"for '{config.kind}' it must be 0"
        )
    num_modes = getattr(config.problem, "num_modes", 0)
    if num_modes > min(coarsest.num_sines):
        raise UserError(
            f"data.mode_shifts: levels[0], {coarsest}, tells apart {min(coarsest.num_sines)} sine "
            f"modes only, fewer than problem.num_modes, {num_modes}; it must be 0"
        )

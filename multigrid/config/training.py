"""The sections ``schedule``, ``optimizer`` and ``loss`` of an experiment file.

Each field's description completes the sentence "``key`` must be ...".
"""

from typing import Annotated, Literal

from pydantic import Field

from multigrid.config.section import PER_LEVEL, Fraction, Positive, Rate, Section


class BudgetConfig(Section):
    """What a training may cost, in one of two units."""

    work_units: Rate | None = Field(
        None, description="a positive number of work units, 1 being an epoch on the finest level"
    )
    seconds: Rate | None = Field(None, description="a positive number of seconds of training")


class ScheduleConfig(Section):
    """How the training is spread over the levels."""

    cycle: Literal["half-v", "v", "w", "f", "single"] = Field(
        "half-v", description="'half-v', 'v', 'w', 'f' or 'single'"
    )
    epochs: Literal["auto"] | Annotated[int, Field(ge=0)] | list[Annotated[int, Field(ge=0)]] = (
        Field(
            10,
            description=f"a number of epochs of at least 0, {PER_LEVEL}, or 'auto' (from budget)",
        )
    )
    budget: BudgetConfig | None = Field(
        None,
        description="{work_units: N} or {seconds: N}, which 'epochs: auto' spreads over the levels",
    )
    batch_size: Positive | list[Positive] = Field(
        16, description=f"a positive number of samples, {PER_LEVEL}"
    )
    learning_rate: Literal["auto"] | Rate | list[Rate] = Field(
        "auto",
        description=f"a positive learning rate, {PER_LEVEL}, or 'auto' (0.004 times the root of "
        "batch_size / 16 on the coarsest level, half of it on each further one; with cycle "
        "'single' the whole)",
    )
    transferred_ratio: Fraction | list[Fraction] = Field(
        0.2,
        description="the learning rate of transferred weights over that of new ones, 0 to 1, "
        f"{PER_LEVEL}",
    )
    warmup: Fraction | list[Fraction] = Field(
        0.05,
        description=f"the fraction of the steps with a rising learning rate, 0 to 1, {PER_LEVEL}",
    )
    patience: Positive | None = Field(
        None,
        description="a positive number of epochs without improvement after which a level ends, "
        "or null",
    )
    stop_at_interpolation_error: bool = Field(
        False, description="true or false: end a level at the interpolation error of its grid"
    )


class OptimizerConfig(Section):
    """How the weights are updated."""

    name: Literal["muon", "adamw"] = Field("muon", description="'muon' or 'adamw'")

    weight_decay: float = Field(0.0, ge=0, le=1, description="a number from 0 to 1")
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.999], min_length=2, max_length=2, description="two numbers in [0, 1)"
    )
    decay: Literal["cosine", "one-cycle"] = Field(
        "cosine", description="'cosine' (after the warm-up) or 'one-cycle'"
    )
    final_rate: Fraction = Field(
        0.01, description="the last learning rate of a level over its highest, 0 to 1"
    )
    clip: Rate | None = Field(1.0, description="the largest gradient norm, positive, or null")
    carry_moments: bool = Field(
        True, description="true or false: carry the moments of transferred weights over"
    )


class LossConfig(Section):
    """What is minimised."""

    name: Literal["rel_l2", "rel_l1", "rel_h1", "mse", "energy"] = Field(
        "rel_l2",
        description="'rel_l2', 'rel_l1', 'rel_h1', 'mse' or 'energy' (steps of a "
        "solver down the energy, which need no labels)",
    )
    residual: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="the weight of at least 0 of the PDE's residual, added to the loss",
    )
    weights: dict[str, Rate] = Field(
        {},
        description="{field: factor}: what the error of an output field is multiplied by, 1 "
        "where none is given",
    )

"""What all sections of an experiment file have in common."""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A mapping of the experiment file; unknown keys and implicit conversions are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


PER_LEVEL = "or a list with one for each level, coarsest first"
"""For the description of a setting that goes by level."""

Size: TypeAlias = Annotated[int, Field(gt=0, le=65536)]
Positive: TypeAlias = Annotated[int, Field(gt=0)]
Rate: TypeAlias = Annotated[float, Field(gt=0, lt=float("inf"), allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

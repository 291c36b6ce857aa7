"""The section ``transfer``: which weights are transferred, and how they are trained."""

from typing import Annotated, Literal

from pydantic import Field

from multigrid.config.section import FileName, Fraction, Positive, Rate, Section

Name = Annotated[str, Field(min_length=1)]


def _tuple(value: str | list[str]) -> tuple[str, ...]:
    """Returns one value or several as a tuple."""
    return tuple(value) if isinstance(value, list) else (value,)


class RuleConfig(Section):
    """How some weights are trained; null leaves a setting as it is."""

    pattern: Name | list[Name] = Field(
        description="a pattern of names, such as 'scales.0' or '*.head', or a list of them",
    )
    weights: Literal["transferred", "new", "all"] = Field(
        "transferred", description="'transferred', 'new' or 'all'"
    )
    freeze: bool | Positive | Literal["plateau"] | None = Field(
        None,
        description="true, false, a positive number of epochs, 'plateau' (until the validation "
        "error has not fallen for transfer.patience epochs) or null",
    )
    rate: Rate | None = Field(
        None, description="a positive factor on the learning rate of new weights, or null"
    )
    weight_decay: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1 or null")
    warmup: Fraction | None = Field(
        None, description="the fraction of the steps with a rate rising from zero, 0 to 1, or null"
    )

    def patterns(self) -> tuple[str, ...]:
        """Returns the patterns as a tuple."""
        return _tuple(self.pattern)

    def concerns(self, transferred: bool) -> bool:
        """Whether the rule is for weights that were transferred, or for those that were not."""
        return self.weights in ("all", "transferred" if transferred else "new")

    def optimizer_options(self) -> dict[str, float]:
        """Returns the options of the optimiser that the rule sets."""
        options = {"scale": self.rate, "weight_decay": self.weight_decay, "warmup": self.warmup}
        return {key: value for key, value in options.items() if value is not None}


class TransplantConfig(Section):
    """Selected weights from a further checkpoint."""

    load: FileName = Field(description="the name of a checkpoint or state dictionary")
    pattern: Name | list[Name] = Field(description="a pattern of names or a list of them")

    def patterns(self) -> tuple[str, ...]:
        """Returns the patterns as a tuple."""
        return _tuple(self.pattern)


class TransferConfig(Section):
    """Which weights are transferred, and how they are trained."""

    rename: dict[Name, Name] = Field(
        {},
        description="a mapping from patterns of names in checkpoints.load to names in the network, "
        "with as many '*' in both",
    )
    transplant: list[TransplantConfig] = Field(
        [], description="a list of mappings {load: file, pattern: names}"
    )
    mismatch: Literal["error", "warn", "allow"] = Field(
        "warn", description="'error', 'warn' or 'allow' (tensors of another shape)"
    )
    allow: list[Name] = Field(
        [], description="a list of patterns of tensors that may have another shape"
    )
    mode: Literal["full", "finetuning", "features", "gradual"] = Field(
        "finetuning",
        description="'full' (no lower rate for transferred weights), 'finetuning' (transferred "
        "weights at schedule.transferred_ratio), 'features' (they are frozen) or 'gradual' (they "
        "unfreeze one scale after the other)",
    )
    decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="the factor in (0, 1] on the rate of transferred weights for each scale of "
        "distance from the new ones",
    )
    unfreeze: Positive | list[Annotated[int, Field(ge=0)]] | Literal["plateau"] = Field(
        "plateau",
        description="for the mode 'gradual': the epochs between one scale and the next, a list "
        "of the epochs after which they unfreeze, or 'plateau'",
    )
    patience: Positive = Field(
        3, description="a positive number of epochs without improvement that make a plateau"
    )
    new_scales: Literal["fresh", "copy"] = Field(
        "fresh",
        description="'fresh' (drawn from the seed) or 'copy' (encoder, decoder and up of a new "
        "scale start as those of the next coarser one)",
    )
    rules: list[RuleConfig] = Field(
        [],
        description="a list of mappings {pattern: names, freeze: ..., rate: ...}; later ones count",
    )
    featurize: bool = Field(
        False,
        description="true or false: compute once what the network's heads are given, where they "
        "alone are trained",
    )

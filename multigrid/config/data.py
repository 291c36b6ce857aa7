"""The sections ``levels`` and ``data`` of an experiment file.

Each field's description completes the sentence "``key`` must be ...".
"""

from typing import Any, Literal

from pydantic import Field

from multigrid.config.section import Count, FileName, Fraction, Positive, Section, Size


class LevelConfig(Section):
    """One level of the ladder."""

    grid: Size | list[Size] = Field(
        description="a number of points, or a list with one for each axis"
    )
    samples: Positive | None = Field(
        None, description="a positive number of training samples, at most data.train"
    )


class DataConfig(Section):
    """What is generated or read, and how it is presented to the network."""

    folder: FileName = Field("data", description="the name of a folder")
    centering: Literal["auto", "cell", "node"] = Field(
        "cell",
        description="'cell' (coarse fields are averages), 'node' (every second point) or 'auto' "
        "(as files of several grids nest, else as a file says, else 'node' for odd sizes)",
    )
    train: Count = Field(1024, description="the number of training samples, 1 to 10^8")
    validation: Count = Field(128, description="the number of validation samples, 1 to 10^8")
    test: Count = Field(128, description="the number of test samples, 1 to 10^8")
    seed: int = Field(0, ge=0, description="a whole number of at least 0")
    extra_tests: dict[str, dict[str, Any]] = Field(
        {},
        description="a mapping from names to settings of the problem that are changed for a "
        "further test set, as in {hard: {num_modes: 20}}",
    )
    rollout_steps: int = Field(
        0,
        ge=0,
        le=10_000,
        description="the time steps over which the surrogate is rolled out in the test, 0 for none",
    )
    augmentation: Literal["auto", "none"] = Field(
        "auto", description="'auto' (what the problem declares exact) or 'none'"
    )
    mode_shifts: Fraction = Field(
        0.0,
        description="a number from 0 to 1: how often augmentation superposes samples with their "
        "sine modes moved up, for inputs with shorter waves than those of the samples",
    )
    normalization: Literal["auto", "none", "gaussian", "min-max"] = Field(
        "auto", description="'auto', 'none', 'gaussian' or 'min-max'"
    )
    memory: Literal["auto", "hold", "stream"] = Field(
        "auto",
        description="'auto' (hold the training samples of a level if they take at most half of "
        "the memory), 'hold' (in memory) or 'stream' (from disk)",
    )

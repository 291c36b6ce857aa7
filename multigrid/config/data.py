"""The sections ``levels`` and ``data`` of an experiment file, and the problem ``file``."""

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


class TimeConfig(Section):
    """How samples are made of the trajectories in the user's files."""

    stride: Positive = Field(1, description="a positive number n: every n-th state is used")
    history: int = Field(
        1, ge=1, le=100, description="the number of successive states in an input, 1 to 100"
    )
    target: Literal["state", "delta"] = Field(
        "state", description="'state' (the next one) or 'delta' (its difference from the last)"
    )
    start: int = Field(0, ge=0, description="the number of the first state that is used")
    end: int | None = Field(
        None, ge=1, description="the number of the first state that is not used any more, or null"
    )
    trajectory: Positive | None = Field(
        None,
        description="the number of successive pairs of one trajectory, in files of pairs, or null",
    )

    def states(self, num_steps: int) -> range:
        """Returns the numbers of the states that are used, of so many."""
        return range(num_steps)[self.start : self.end : self.stride]


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
    time: TimeConfig = Field(TimeConfig(), description="a mapping")
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


class FileEntryConfig(Section):
    """One of several data files."""

    file: FileName = Field(description="the name of a data file or a folder, or a pattern of names")
    split: Literal["train", "validation", "test"] | None = Field(
        None, description="'train', 'validation' or 'test', or null for what no other file is for"
    )


class FileConfig(Section):
    """Samples from the user's files; ``multigrid inspect FILE`` writes this."""

    kind: Literal["file"]
    file: FileName | None = Field(
        None,
        description="the name of a data file, a folder of files alike, or a pattern of names",
    )
    files: list[FileName | FileEntryConfig] | None = Field(
        None,
        min_length=1,
        description="a list of data files, each a name or {file: ..., split: ...}; of several "
        "grids a level uses its own, else the next finer one restricted",
    )
    ndim: int = Field(2, ge=1, le=3, description="the number of space dimensions, 1 to 3")
    reader: str = Field("auto", min_length=1, description="'auto' or the name of a reader")
    input: str | list[str] | None = Field(
        None, min_length=1, description="the name of the input array, or a list of such names"
    )
    output: str | list[str] | None = Field(
        None,
        min_length=1,
        description="the name of the output array, or a list of such names, or the second file of "
        "a .npy pair; the input's name for trajectories",
    )
    fields: list[str] | None = Field(
        None, min_length=1, description="a list of the time-dependent fields to take, or null"
    )
    axes: str | dict[str, str] | None = Field(
        None,
        min_length=1,
        description="what the axes of arrays are, as in 'N T C X Y', or that for each array, as "
        "in {u: N T X Y, mask: X Y}",
    )
    parameters: list[str] = Field(
        [],
        description="a list of scalars of each trajectory or file that become constant input "
        "channels",
    )
    input_channels: list[str] | None = Field(
        None, min_length=1, description="a list of the input channels to keep, or null for all"
    )
    output_channels: list[str] | None = Field(
        None, min_length=1, description="a list of the output channels to keep, or null for all"
    )
    noncartesian: bool = Field(
        False, description="true or false: whether to take other grids as if they were Cartesian"
    )
    reduced_resolution: Positive = Field(
        1, description="a positive number n: every n-th point along each axis is kept"
    )
    symmetries: list[Literal["reflections", "rotations", "linear", "homogeneous", "shifts"]] = (
        Field(
            [],
            description="a list of what is exact: 'reflections', 'rotations', 'linear', "
            "'homogeneous', 'shifts'",
        )
    )

    def entries(self) -> list[FileEntryConfig]:
        """Returns the files, whether named by ``file`` or ``files``."""
        named = [self.file] if self.file is not None else self.files or []
        return [FileEntryConfig(file=n) if isinstance(n, str) else n for n in named]

    def flags(self) -> dict[str, Any]:
        """Returns the symmetries as keyword arguments."""
        return {str(name): True for name in self.symmetries}

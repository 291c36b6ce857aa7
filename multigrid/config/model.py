"""The section ``model`` of an experiment file.

Each field's description completes the sentence "``key`` must be ...".
"""

from typing import Annotated, Literal

from pydantic import Field

from multigrid.config.section import Section


class DoublingConfig(Section):
    """Widths that double from the outermost scale of the finest level inwards."""

    outer: int = Field(gt=0, le=4096, description="the width of the outermost scale, 1 to 4096")
    max: int = Field(256, gt=0, le=4096, description="the largest width, 1 to 4096")


class ModelConfig(Section):
    """The UNet family."""

    form: Literal["pyramid", "classic"] = Field("pyramid", description="'pyramid' or 'classic'")
    width: (
        Annotated[int, Field(gt=0, le=4096)]
        | list[Annotated[int, Field(gt=0, le=4096)]]
        | DoublingConfig
    ) = Field(
        48,
        description="a width from 1 to 4096 for all scales, a list with one for each scale from "
        "the bottleneck outwards, or {outer: W, max: M} for widths that double inwards",
    )
    num_blocks: int = Field(
        1, ge=1, le=16, description="the residual blocks per encoder and per decoder, 1 to 16"
    )
    min_size: int = Field(
        2, ge=2, description="the size, at least 2, below which a grid is not halved any more"
    )
    depth: int | None = Field(
        None, ge=0, le=20, description="the number of scales below the coarsest level, 0 to 20"
    )
    growth: bool = Field(
        True,
        description="true or false: give finer levels more scales instead of using the network "
        "of level 0 on every grid",
    )
    fields: Literal["restricted", "folded"] = Field(
        "restricted",
        description="'restricted' (the network of a level works on fields of its grid) or 'folded' "
        "(on those of the finest grid, with blocks of values laid into channels)",
    )
    padding: Literal["zeros", "replicate", "periodic"] = Field(
        "zeros", description="'zeros', 'replicate' or 'periodic'"
    )
    normalization: Literal["none", "group", "instance"] = Field(
        "none", description="'none', 'group' or 'instance'"
    )
    bottleneck: Literal["conv", "dense", "attention"] = Field(
        "conv",
        description="'conv', or 'dense' or 'attention' over all points of the coarsest grid",
    )
    prolongation: int = Field(
        4, ge=1, le=6, description="the polynomial degree of the prolongation, 1 to 6"
    )

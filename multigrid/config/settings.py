"""The sections of an experiment file on where a run computes, and what it keeps.

Each field's description completes the sentence "``key`` must be ...".
"""

from typing import Literal

from pydantic import Field

from multigrid.config.section import PER_LEVEL, Positive, Rate, Section


class ComputeConfig(Section):
    """Where and in which precision to compute."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="'auto', 'cpu' or 'cuda'")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="'auto', 'float32' or 'bfloat16'"
    )
    compile: bool = Field(
        False,
        description="true or false: compile the networks for each grid with torch.compile",
    )


class ParallelConfig(Section):
    """How a step is spread over processes and fitted into their memory."""

    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="'ddp' (each process holds the whole network) or 'fsdp' (parameters, gradients "
        "and optimiser state are spread over the processes)",
    )
    accumulate: Positive | list[Positive] = Field(
        1, description=f"the parts, at least 1, in which a process takes its batch, {PER_LEVEL}"
    )
    checkpoint_activations: bool | list[bool] = Field(
        False,
        description="true or false: compute activations anew in the backward pass instead of "
        f"keeping them, {PER_LEVEL}",
    )


class CheckpointsConfig(Section):
    """What is saved of the networks, and when."""

    interval: int = Field(25, gt=0, description="a positive number of epochs")
    steps: Positive | None = Field(
        None, description="a positive number of steps after which to save as well, or null"
    )
    minutes: Rate | None = Field(
        10.0, description="a positive number of minutes after which to save as well, or null"
    )
    load: str | None = Field(
        None,
        min_length=1,
        description="the name of a checkpoint or state dictionary (.pt, .safetensors) to take "
        "weights from, or null",
    )
    save: str | None = Field(
        None,
        pattern=r".\.(pt|safetensors)$",
        description="the name of a .pt or .safetensors file for the weights of the finished "
        "network, or null",
    )


class RecoveryConfig(Section):
    """What happens when the loss is no number or explodes, or the memory does not suffice."""

    tries: int = Field(
        3,
        ge=0,
        le=100,
        description="how often a stage may go back to its best state, 0 (give up at once) to 100",
    )
    factor: float = Field(
        0.3, gt=0, le=1, description="what the learning rate is multiplied with then, up to 1"
    )
    explosion: float | None = Field(
        1000.0,
        gt=1,
        allow_inf_nan=False,
        description="a number above 1, how many times its lowest value the loss may be for some "
        "steps in a row, or null for no limit",
    )
    split_batches: bool = Field(
        True, description="true or false: take a batch in parts that does not fit into the memory"
    )


class OutputConfig(Section):
    """Where the results go."""

    folder: str = Field("results", min_length=1, description="the name of a folder")
    num_predictions: int = Field(3, ge=1, le=16, description="the test samples drawn, 1 to 16")
    tensorboard: bool = Field(
        False, description="true or false: also write TensorBoard events into the run's folder"
    )

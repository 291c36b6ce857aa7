"""The parts of an experiment that sections of its configuration describe."""

from functools import partial
from pathlib import Path
from typing import Any

from multigrid.config import Config, parse_config
from multigrid.config.data import FileConfig
from multigrid.data import SPLITS
from multigrid.data.samples import Samples
from multigrid.data.source import SampleSource
from multigrid.data.store import DataStore, GeneratedSource
from multigrid.errors import UserError
from multigrid.ladder.prospects import choose_cycle, choose_fields, measure_floors
from multigrid.metrics import bind
from multigrid.models.growth import CustomFamily, NetworkFactory, NetworkFamily, UNetFamily
from multigrid.problems import PDE, FileProblem, Problem
from multigrid.registry import NETWORKS

NUM_SAMPLES = 16
"""What 'auto' looks at."""


def problem_and_source(
    config: Config, labelled: bool = True, num_steps: int = 1
) -> tuple[Problem, SampleSource]:
    """Returns the PDE of a configuration and where its samples come from.

    Generated training samples have solutions if ``labelled``; those for training have the outputs
    of so many steps.

    Raises:
        UserError: If the user's files cannot be used.
    """
    section, data = config.files, config.data
    if section is None:
        problem = config.pde()
        return problem, generated_source(config, problem, labelled, num_steps)
    from multigrid.data.files import FileSource
    from multigrid.data.remote import local
    from multigrid.data.splits import DataFile

    files = [DataFile(local(entry.file), entry.split) for entry in section.entries()]
    counts = {"train": config.samples()[-1], "validation": data.validation, "test": data.test}
    how = data.centering, section, data.time, Path(data.folder), num_steps
    source = FileSource(files, counts, *how)
    source.require_steps(data.rollout_steps)
    return file_problem(section, source.input_names, source.output_names), source


def settle(config: Config, source: SampleSource) -> tuple[Config, dict[str, str]]:
    """Returns a configuration with what its samples have shown: centering, cycle, kind of fields.

    And in words what ``auto`` has become and why, by key.

    Raises:
        UserError: If its grids do not nest, or do not suit its problem, with this centering.
    """
    reasons: dict[str, str] = {}
    if config.data.centering == "auto":
        config = _changed(config, "data", centering=source.centering)
    has_choice = config.is_automatic and len(config.levels) > 1 and config.budget.error is None
    if config.schedule.cycle == "auto" and not has_choice:
        config = _changed(config, "schedule", cycle="half-v")
    if "auto" not in (config.schedule.cycle, config.model.fields):
        return config, reasons
    samples = some_samples(config, source)
    measured = measure_floors(config, samples)
    if config.schedule.cycle == "auto":
        cycle, reasons["schedule.cycle"] = choose_cycle(measured, samples)
        config = _changed(config, "schedule", cycle=cycle)
    if config.model.fields == "auto":
        fields, reasons["model.fields"] = choose_fields(measured)
        config = _changed(config, "model", fields=fields)
    return config, reasons


def some_samples(config: Config, source: SampleSource) -> Samples:
    """Returns a few samples on the finest grid, to see what they are like."""
    return source.first(config.hierarchy().finest, NUM_SAMPLES)


def _changed(config: Config, section: str, **values: Any) -> Config:
    raw = config.model_dump()
    return parse_config({**raw, section: {**raw[section], **values}}, config.name)


def file_problem(
    section: FileConfig, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> FileProblem:
    """Returns the problem of the user's files, with the names of their fields."""
    return FileProblem(inputs, outputs, section.exact(), section.mask)


def generated_source(
    config: Config, problem: PDE, labelled: bool = True, num_steps: int = 1
) -> GeneratedSource:
    """Returns where the samples of a PDE are generated and kept."""
    folder, finest = Path(config.data.folder), config.hierarchy().finest
    make = partial(DataStore, folder, problem, finest, config.data.seed)
    return GeneratedSource(make(), labelled, make(num_steps) if num_steps > 1 else None)


def make_samples(config: Config) -> tuple[GeneratedSource, dict[str, int], int]:
    """Generates what a run will need, further tests included.

    Returns the source of the run's samples, their counts, and how many were generated in all.
    """
    num_steps = max(config.rollout_training.curriculum)
    source = generated_source(config, config.pde(), config.labelled, num_steps)
    counts = source.wanted({split: getattr(config.data, split) for split in SPLITS})
    generated = source.prepare(counts)
    for changes in config.data.extra_tests.values():
        further = generated_source(config, config.pde(changes))
        generated += further.prepare({"test": config.data.test})
    return source, counts, generated


def network_family(
    config: Config, in_channels: int, out_channels: int, network: NetworkFactory | None = None
) -> NetworkFamily:
    """Returns the networks of a ladder: those of a factory, or the UNets of a configuration."""
    hierarchy, model = config.hierarchy(), config.model
    if network is not None and model.options:
        raise UserError(
            "model.options: have no effect on a network handed in; leave one of the two out"
        )
    if network is None and model.network != "unet":
        network = NETWORKS.configured(model.network, model.options, "model.options")
    if network is not None:
        network = bind(network, in_channels=in_channels, out_channels=out_channels)
        if model.fields == "folded":
            raise UserError(
                "model.fields: 'folded' is for the networks of the section 'model'; with a network "
                "of your own it must be 'restricted'"
            )
        return CustomFamily(network, hierarchy, in_channels, out_channels, seed=config.seed)
    assert model.fields != "auto"  # which is settled before
    return UNetFamily(
        hierarchy,
        config.widths(hierarchy),
        in_channels,
        out_channels,
        form=model.form,
        num_blocks=model.num_blocks,
        padding=model.padding,
        norm=model.normalization,
        block=model.block,
        block_options=model.options,
        activation=model.activation,
        prolongation=model.prolongation,
        growth=model.growth,
        fields=model.fields,
        seed=config.seed,
    )

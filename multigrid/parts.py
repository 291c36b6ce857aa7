"""The parts of an experiment that sections of its configuration describe."""

from collections.abc import Mapping
from pathlib import Path

from multigrid.config import Config
from multigrid.config.problem import FileConfig
from multigrid.data import SPLITS
from multigrid.data.file_splits import DataFile
from multigrid.data.files import FileSource
from multigrid.data.readers import ReaderOptions
from multigrid.data.source import GeneratedSource, SampleSource
from multigrid.data.store import DataStore
from multigrid.grid import Centering
from multigrid.guard import RecoveryOptions
from multigrid.hardware import PrecisionName
from multigrid.models.family import UNetFamily
from multigrid.models.own import NetworkFactory, OwnFamily
from multigrid.models.protocol import NetworkFamily
from multigrid.problems import PDE, FileProblem, Problem, Symmetries, build_problem
from multigrid.team import Team
from multigrid.trainer import TrainerOptions


def problem_and_source(config: Config) -> tuple[Problem, SampleSource]:
    """Returns the PDE of a configuration and where its samples come from.

    Raises:
        UserError: If the user's files cannot be used.
    """
    section = config.problem
    if isinstance(section, FileConfig):
        counts = {split: getattr(config.data, split) for split in SPLITS}
        counts["train"] = config.samples()[-1]
        files = _open_files(section, config.data.centering, counts)
        return file_problem(section, files.input_names, files.output_names), files
    problem = build_problem(**section.model_dump())
    return problem, generated_source(config, problem)


def file_problem(
    section: FileConfig, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> FileProblem:
    """Returns what is learned from the user's files, with the names of their fields."""
    return FileProblem(inputs, outputs, Symmetries(**section.flags()))


def generated_source(config: Config, problem: PDE) -> GeneratedSource:
    """Returns where the samples of a PDE are generated and kept."""
    folder, finest = Path(config.data.folder), config.hierarchy().finest
    return GeneratedSource(DataStore(folder, problem, finest, config.data.seed))


def network_family(
    config: Config, in_channels: int, out_channels: int, network: NetworkFactory | None = None
) -> NetworkFamily:
    """Returns the networks of a ladder: those of a factory, or the UNets of a configuration."""
    hierarchy, model = config.hierarchy(), config.model
    if network is not None:
        return OwnFamily(network, hierarchy, in_channels, out_channels, seed=config.seed)
    return UNetFamily(
        hierarchy,
        config.widths(hierarchy),
        in_channels,
        out_channels,
        form=model.form,
        num_blocks=model.num_blocks,
        padding=model.padding,
        norm=model.normalization,
        prolongation=model.prolongation,
        bottleneck=model.bottleneck,
        growth=model.growth,
        seed=config.seed,
    )


def _open_files(section: FileConfig, centering: Centering, counts: Mapping[str, int]) -> FileSource:
    files = [DataFile(Path(entry.file), entry.split) for entry in section.entries()]
    return FileSource(files, counts, centering, section.reader, ReaderOptions.of(section))


def trainer_options(
    config: Config, problem: Problem, precision: PrecisionName, team: Team
) -> TrainerOptions:
    """Returns what a configuration says of the trainer on all levels."""
    schedule, optimizer, recovery = config.schedule, config.optimizer, config.recovery
    return TrainerOptions(
        optimizer=optimizer.name,
        weight_decay=optimizer.weight_decay,
        betas=(optimizer.betas[0], optimizer.betas[1]),
        decay=optimizer.decay,
        final_rate=optimizer.final_rate,
        clip=optimizer.clip,
        precision=precision,
        symmetries=problem.symmetries if config.data.augmentation == "auto" else None,
        patience=schedule.patience,
        seed=config.seed,
        recovery=RecoveryOptions(recovery.tries, recovery.factor, recovery.explosion),
        accumulate=recovery.accumulate,
        team=team,
    )

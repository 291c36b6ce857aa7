"""The experiment file: every setting, its default, what is allowed, and how it is read.

The only package that knows YAML. It imports no torch, so that a mistake is reported at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from multigrid.config.checks import check_config
from multigrid.config.experiment import Config as Config
from multigrid.config.experiment import keys_of
from multigrid.config.handed_in import register_handed_in, require_rebuilt
from multigrid.config.section import plain, sentence
from multigrid.config.yaml_file import dump_yaml, override, read_yaml
from multigrid.errors import UserError
from multigrid.files import YAML, expand, path_of, seal, unseal, write_text
from multigrid.problems import PDE
from multigrid.registry import import_plugin

REMOVED = {
    "optimizer": "decay",
    "recovery": "split_batches",
    "schedule": "stop_at_interpolation_error",
}
"""The key of version 0.1.0 that a section no longer has; it only mattered in training."""


def load_config(
    path: str | Path, overrides: Sequence[str] = (), problem: PDE | None = None
) -> Config:
    """Reads a YAML file and validates it, some settings of it replaced.

    ``overrides`` are assignments ``section.key=value``, the value in YAML, and ``problem`` is a PDE
    to use instead of the section of that name.

    Raises:
        UserError: For the first thing that is wrong.
    """
    path = path_of(path)
    raw = read_yaml(path)
    for assignment in overrides:
        override(raw, assignment)
    return parse_config(raw, str(path), problem, path.parent)


def parse_config(
    raw: Mapping[str, Any],
    source: str = "configuration",
    problem: PDE | None = None,
    folder: Path | None = None,
) -> Config:
    """Imports the plugins of an experiment given as plain containers, and validates it.

    Numbers of numpy, arrays, tuples, ranges and paths are accepted, and a PDE in place of the
    section ``problem``. ``source`` says in sentences where they come from. Plugins are relative to
    the ``folder`` of the experiment file, by default the current one, and data files that are not
    in the current one are looked for in it.

    Raises:
        UserError: For the first thing that is wrong.
    """
    raw = plain(raw)
    try:
        if raw.get("plugins"):
            raw = {**raw, "plugins": _import_plugins(raw["plugins"], folder)}
        if problem is not None:
            raw = {**raw, "problem": register_handed_in(problem)}
        config = _validated(raw, folder=folder)
        if problem is not None:
            require_rebuilt(problem)
        return config
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def parse_saved(raw: Any, source: str) -> Config:
    """Validates what a run or a checkpoint has saved, maybe in an earlier version.

    Reading a saved configuration runs no code: plugins have to be imported already, but for those
    whose losses, optimizers and callbacks only a training needs.
    """
    sections = raw.items() if isinstance(raw, Mapping) else ()
    current = {k: dict(v) if isinstance(v, Mapping) else v for k, v in sections}
    for name, key in REMOVED.items():
        if isinstance(section := current.get(name), dict):
            section.pop(key, None)
    if isinstance(model := current.get("model"), dict) and model.get("bottleneck") == "conv":
        del model["bottleneck"]  # the kind that is left
    if isinstance(transfer := current.get("transfer"), dict) and "regime" in transfer:
        transfer.clear()  # it only mattered in training
    try:
        return _validated(current, saved=True)
    except UserError as error:
        plugins = current.get("plugins")
        names = ", ".join(map(str, plugins)) if isinstance(plugins, list) else ""
        hint = f"the run used {names}: give that as --plugin, or import it before; " * bool(names)
        raise UserError(f"{source}: {hint}{error}") from None


def _validated(raw: Mapping[str, Any], **context: Any) -> Config:
    try:
        config = Config.model_validate(raw, context=context)
    except ValidationError as error:
        raise UserError(sentence(error, Config, others=keys_of(raw))) from None
    check_config(config, saved="saved" in context)
    return config


def _import_plugins(names: Any, folder: Path | None) -> list[str]:
    """Imports plugins and returns their names, those of files from the current folder."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return names  # validation says what is wrong
    folder = folder or Path()
    places = [str(folder / expand(name)) if name.endswith(".py") else name for name in names]
    for place in places:
        import_plugin(place)
    return places


def write_saved(path: Path, raw: Mapping[str, Any]) -> None:
    """Writes the dumped configuration of a run, with a checksum."""
    write_text(path, seal(dump_yaml(raw), YAML))


def read_saved(path: Path) -> Config:
    """Reads back what :func:`write_saved` wrote.

    Raises:
        UserError: If it is damaged, or not valid.
    """
    raw = read_yaml(path)
    try:
        unseal(path.read_text(encoding="utf-8"), YAML)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    return parse_saved(raw, str(path))


def dump_config(config: Config) -> str:
    """Returns the resolved configuration as YAML."""
    return dump_yaml(config.model_dump())


def changed_settings(saved: Config, config: Config) -> list[str]:
    """Returns the dotted keys in which the configuration that a run has saved is another.

    What only the samples show is passed over while it is ``auto``: they are not open yet. So is
    where plugins lie, and what saves memory, as a run that lacked some must be able to go on.
    """
    old, new = (dict(flatten(settings.model_dump())) for settings in (saved, config))
    passed_over = {"plugins", "parallel.accumulate", "parallel.checkpoint_activations"}
    measured = ("data.centering", "schedule.cycle", "model.fields")
    passed_over |= {key for key in measured if new[key] == "auto"}
    same = {key for key in old.keys() & new.keys() if old[key] == new[key]}
    return [key for key in {**old, **new} if key not in same | passed_over]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys and values of a dumped configuration."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

"""Patterns for the names of layers and tensors, and renaming by them.

A pattern is a name in which ``*`` stands for any text. It matches a tensor's name, or the name of
a layer that the tensor belongs to: ``scales.0`` matches all of ``scales.0.stem.conv.weight``.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from multigrid.errors import UserError, nearest


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches a name."""
    return any(_regex(pattern).fullmatch(name) for pattern in patterns)


def require_match(pattern: str, names: Collection[str], key: str) -> None:
    """Checks that a pattern matches something.

    Args:
        pattern: The pattern.
        names: Names of tensors.
        key: Where the pattern was given, for the sentence.

    Raises:
        UserError: If it matches none of the names; the sentence tells the nearest that is there.
    """
    if not any(matches(name, [pattern]) for name in names):
        options = layers(names)
        hint = nearest(pattern, options) or f"; there are {', '.join(sorted(options)[:4])}, ..."
        raise UserError(f"{key}: '{pattern}' matches no tensor{hint}")


def layers(names: Iterable[str]) -> set[str]:
    """Returns the names and all their leading parts: tensors and the layers they belong to."""
    prefixes = set()
    for name in names:
        parts = name.split(".")
        prefixes |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return prefixes


def rename(names: Collection[str], rules: Mapping[str, str], key: str) -> dict[str, str]:
    """Renames by patterns; the first rule that matches a name counts.

    Each ``*`` of the new pattern stands for what that of the old one matched.

    Args:
        names: Names as they are.
        rules: Old pattern to new pattern, with as many ``*`` in both.
        key: Where the rules were given, for the sentence.

    Returns:
        The new name of every name.

    Raises:
        UserError: If a rule matches nothing, or two names become one.
    """
    for old in rules:
        require_match(old, names, key)
    renamed = {name: _renamed(name, rules) for name in names}
    source: dict[str, str] = {}
    for name, new in renamed.items():
        if new in source:
            raise UserError(f"{key}: '{source[new]}' and '{name}' would both become '{new}'")
        source[new] = name
    return renamed


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for old, new in rules.items():
        match = _regex(old).fullmatch(name)
        if match:
            *stars, rest = match.groups(default="")
            texts = iter(stars)
            return re.sub(r"\*", lambda _, texts=texts: next(texts, ""), new) + rest  # type: ignore[misc]
    return name


def _regex(pattern: str) -> re.Pattern[str]:
    """Returns one group for each star, and a last one for what comes below a layer."""
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))) + r"(\..*)?")

"""Small trained surrogates by name, ``zoo:<name>``: a file of weights and a card each.

``python -m experiments.zoo`` trains and writes them.
"""

from pathlib import Path

from multigrid.errors import UserError, nearest
from multigrid.files import path_of

FOLDER = Path(__file__).parent
PREFIX = "zoo:"


def names() -> list[str]:
    """Returns the names of all surrogates of the zoo."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def located(path: str | Path) -> Path:
    """Returns the file of a surrogate of the zoo for ``zoo:<name>``, and any other as it is named.

    Raises:
        UserError: If the zoo has no surrogate of this name.
    """
    text = str(path)
    if not text.startswith(PREFIX):
        return path_of(path)
    name = text.removeprefix(PREFIX)
    if name not in names():
        raise UserError(
            f"{text}: is not in the zoo; there are {', '.join(names())}{nearest(name, names())}"
        )
    return FOLDER / f"{name}.safetensors"

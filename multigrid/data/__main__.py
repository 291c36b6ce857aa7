"""``python -m multigrid.data inspect FILE``, or ``generate EXPERIMENT``: the data commands."""

import sys
from collections.abc import Sequence

from multigrid.commands import generate, inspect

COMMANDS = {"inspect": inspect.COMMAND, "generate": generate.COMMAND}
PROGRAM = "python -m multigrid.data"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        return COMMANDS[given[0]].main(given[1:], f"{PROGRAM} {given[0]}")
    wants_help = given[:1] in (["-h"], ["--help"])
    lines = [f"{PROGRAM} {name} ...\n    {c.description}" for name, c in COMMANDS.items()]
    print("\n".join(["usage:", *lines]), file=sys.stdout if wants_help else sys.stderr)
    return 0 if wants_help else 2


if __name__ == "__main__":
    sys.exit(main())

"""The one exception that is meant for the user's eyes, and text that is safe to print."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake that the user can fix, reported in one sentence.

    The commands print the sentence without a traceback and exit with status 2. Line breaks and
    control characters in it, which names from files may have, are escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str, keep: str = "") -> str:
    """Escapes control characters, but for some, so that text from files cannot pass for ours."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the closest allowed name, or an empty string."""
    matches = get_close_matches(str(name), [str(option) for option in allowed], n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def brief(error: BaseException) -> str:
    """Returns the first line of what a library says, of bounded length.

    Of the state of a file that HDF5 dumps, what the system said is left.
    """
    text = str(error)
    if dump := re.search(r"errno = \d+, error message = '([^']*)'", text):
        return dump[1]
    line = text.split("\n")[0].strip("'\"") or type(error).__name__
    return line if len(line) <= 200 else line[:197] + "..."

"""Plain-text tables."""

from collections.abc import Sequence

from multigrid.errors import printable


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns an aligned table; columns of numbers are set flush right."""
    header, *rows = [[printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def _is_number(cell: str) -> bool:
    return cell in {"", "-"} or cell[0].isdigit() or (cell[0] in "-+." and cell[1:2].isdigit())


def si(value: float) -> str:
    """Returns a number with three digits and an SI prefix: ``995 M``, ``1.23 G``."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g}"


def listed(items: Sequence[object], most: int) -> str:
    """Returns the first items, and how many more there are: ``1, 2, 3 and 5 more``."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Returns a number with its noun: ``1 epoch``, ``2 epochs``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"

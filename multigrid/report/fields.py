"""Fields as the report's page holds them: 16 bits a value, in text."""

from base64 import b64encode
from typing import Any

import matplotlib
import numpy as np

from multigrid.plots.predictions import ERRORS, FIELDS
from multigrid.records.examples import Examples

MAX_POINTS = 192
STEPS = 65535


def frames(examples: Examples) -> list[dict[str, Any]]:
    """Returns what can be flipped through: samples, fields and slices, then roll-outs."""
    found = []
    for sample, relative in enumerate(examples.rel_l2):
        for channel, name in enumerate(examples.output_names):
            field = min(channel, len(examples.input_names) - 1)
            for cut in examples.cuts:
                where = f", {cut.label}" if cut.label else ""
                panels = _compared(
                    cut.truth[sample, channel],
                    cut.prediction[sample, channel],
                    name,
                    f"error (relative L2 {relative[channel]:.2%})",
                )
                given = cut.inputs[sample, field]
                first = _panel(f"input {examples.input_names[field]}", given, "field")
                found.append(
                    {"title": f"sample {sample}, {name}{where}", "panels": [first, *panels]}
                )
    return found + _rollout_frames(examples)


def _rollout_frames(examples: Examples) -> list[dict[str, Any]]:
    if examples.rollout is None:
        return []
    rollout = examples.rollout
    return [
        {
            "title": f"roll-out, {name}, step {step}",
            "panels": _compared(
                rollout.truth[index, channel], rollout.prediction[index, channel], name, "error"
            ),
        }
        for channel, name in enumerate(examples.output_names)
        for index, step in enumerate(rollout.steps)
    ]


def _compared(
    truth: np.ndarray, guess: np.ndarray, name: str, error_name: str
) -> list[dict[str, Any]]:
    limits = float(truth.min()), float(truth.max())
    return [
        _panel(f"truth {name}", truth, "field", limits),
        _panel(f"prediction {name}", guess, "field", limits),
        _panel(error_name, guess - truth, "error"),
    ]


def _panel(
    name: str, field: np.ndarray, colours: str, limits: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Returns a field with its range; every n-th point only where there are very many."""
    step = -(-max(field.shape) // MAX_POINTS)
    values = field[::step, ::step].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if limits is None:
        size = max(abs(low), abs(high))
        limits = (-size, size) if colours == "error" else (low, high)
    scaled = (values - low) / (high - low or 1.0) * STEPS
    return {
        "name": name,
        "map": colours,
        "width": values.shape[0],
        "height": values.shape[1],
        "step": step,
        "low": low,
        "high": high,
        "limits": limits,
        "data": b64encode(scaled.round().astype("<u2").tobytes()).decode("ascii"),
    }


def colour_maps() -> dict[str, str]:
    """Returns 256 colours for fields and for errors, each colour as six hexadecimal digits."""
    return {
        name: "".join(
            matplotlib.colors.to_hex(matplotlib.colormaps[colours](i))[1:] for i in range(256)
        )
        for name, colours in (("field", FIELDS), ("error", ERRORS))
    }

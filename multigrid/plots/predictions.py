"""Test samples beside their predictions, and roll-outs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from multigrid.plots.style import COLOURS, plain, tidy
from multigrid.records.examples import Examples, RollOut

FIELDS, ERRORS = "viridis", "RdBu_r"
MAX_ROWS = 8


def plot_predictions(examples: Examples, title: str) -> Figure:
    """Draws input, truth, prediction and error; one row for each sample, output field and slice.

    Truth and prediction share their colours; those of the error are symmetric about zero. Further
    samples are left out where there would be more than eight rows.
    """
    rows = [
        (sample, channel, cut)
        for sample in range(len(examples.rel_l2))
        for channel in range(len(examples.output_names))
        for cut in examples.cuts
    ]
    a_sample = len(examples.output_names) * len(examples.cuts)
    rows = rows[: max(1, MAX_ROWS // a_sample) * a_sample]
    first = examples.cuts[0].truth
    height = 2.5 * min(2.0, max(0.5, first.shape[3] / first.shape[2]))
    figure = Figure(figsize=(11.5, height * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for line, (sample, channel, cut) in zip(axes, rows, strict=True):
        field = min(channel, len(examples.input_names) - 1)
        truth, guess = cut.truth[sample, channel], cut.prediction[sample, channel]
        name, relative = examples.output_names[channel], examples.rel_l2[sample, channel]
        limits = float(truth.min()), float(truth.max())
        _image(line[0], cut.inputs[sample, field], f"input {examples.input_names[field]}", FIELDS)
        _image(line[1], truth, f"truth {name}", FIELDS, limits)
        _image(line[2], guess, f"prediction {name}", FIELDS, limits)
        _image(line[3], guess - truth, f"error (relative L2 {relative:.2%})", ERRORS)
        where = f", {cut.label}" if cut.label else ""
        line[0].set_ylabel(f"sample {sample}{where}", fontsize=9)
    figure.suptitle(plain(title))
    return figure


def plot_rollout(
    rollout: RollOut, errors: Sequence[float], names: Sequence[str], title: str
) -> Figure:
    """Draws truth, prediction and error at some steps, and the error after every step.

    Args:
        rollout: One trajectory.
        errors: Mean relative L2 error over trajectories after 1, 2, ... steps.
        names: Names of the fields.
        title: Title of the figure.
    """
    count, steps = len(names), len(rollout.steps)
    figure = Figure(figsize=(2.1 * steps + 1, 5.9 * count + 2.6), layout="constrained")
    upper, lower = figure.subfigures(  # type: ignore[misc]
        2, 1, height_ratios=[5.9 * count, 2.6]
    )
    axes = upper.subplots(3 * count, steps, squeeze=False)
    for channel, name in enumerate(names):
        truth, guess = rollout.truth[:, channel], rollout.prediction[:, channel]
        error = guess - truth
        later = truth[1:]  # the first state may be far rougher than all that follow
        limits = float(later.min()), float(later.max())
        size = max(float(np.abs(error).max()), 1e-30)
        for row, (label, fields, colours, scale) in enumerate(
            (
                (f"truth {name}", truth, FIELDS, limits),
                (f"prediction {name}", guess, FIELDS, limits),
                ("error", error, ERRORS, (-size, size)),
            )
        ):
            line = axes[3 * channel + row]
            for axis, field, step in zip(line, fields, rollout.steps, strict=True):
                image = _image(axis, field, "", colours, scale if step else None, bar=False)
                if not channel and not row:
                    heading = f"step {step}" if step else "given (colours of its own)"
                    axis.set_title(heading, fontsize=9)
            if label == "error":
                line[0].set_visible(False)  # there is none yet
            line[1 if label == "error" else 0].set_ylabel(plain(label), fontsize=9)
            upper.colorbar(
                image,
                ax=list(line),
                shrink=0.85,
                aspect=12,
                extend="both" if row < 2 else "neither",
            )
    axis = lower.subplots()
    axis.plot(range(1, len(errors) + 1), errors, color=COLOURS[0], marker="o", markersize=4)
    axis.set(xlabel="steps", ylabel="relative L2 error", ylim=(0, None))
    tidy(axis)
    figure.suptitle(plain(title))
    return figure


def _image(
    axis: Axes,
    field: np.ndarray,
    title: str,
    colours: str,
    limits: tuple[float, float] | None = None,
    bar: bool = True,
) -> AxesImage:
    if limits is None:
        limits = float(field.min()), float(field.max())
        if colours == ERRORS:
            size = max(float(np.abs(field).max()), 1e-30)
            limits = -size, size
    image = axis.imshow(field.T, origin="lower", cmap=colours, vmin=limits[0], vmax=limits[1])
    if bar:
        colour_bar = axis.figure.colorbar(image, ax=axis, shrink=0.85)
        colour_bar.ax.tick_params(labelsize=7)
        colour_bar.ax.ticklabel_format(scilimits=(-3, 4))
        colour_bar.ax.yaxis.get_offset_text().set_fontsize(7)
    axis.set_title(plain(title), fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    return image

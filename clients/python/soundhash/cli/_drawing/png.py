"""A scene as PNG. Needs matplotlib (`soundhash[draw]`)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from soundhash.cli._drawing.scene import Bitmap, Dot, Line, Rect, Scene, Shape, Text

_PIXELS_PER_INCH = 100.0
_SCALE = 2.0
"""Pixels of the file a pixel of the scene: sharp on fine screens."""
_ALIGN = {"start": "left", "middle": "center", "end": "right"}


def write(scene: Scene, path: Path) -> None:
    """Writes the file. Raises ImportError without matplotlib, OSError as usual."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(
        figsize=(scene.width / _PIXELS_PER_INCH, scene.height / _PIXELS_PER_INCH),
        dpi=_SCALE * _PIXELS_PER_INCH,
        facecolor="white",
    )
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    for order, shape in enumerate(scene.shapes):
        _draw(axes, shape, order)
    # Pictures set the limits to their own.
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    axes.set_aspect("auto")
    with warnings.catch_warnings():
        # A title may have signs that its font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(path, format="png", metadata={"Title": _latin(scene.title)})


def _latin(text: str) -> str:
    """A PNG's text knows no more."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _draw(axes: Any, shape: Shape, order: int) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Ellipse, Rectangle  # noqa: PLC0415

    points = 72.0 / _PIXELS_PER_INCH
    match shape:
        case Rect():
            corner, size = (shape.x, shape.y), (max(0.0, shape.width), max(0.0, shape.height))
            axes.add_patch(
                Rectangle(
                    corner,
                    *size,
                    facecolor=shape.fill,
                    edgecolor=shape.stroke,
                    linewidth=0.0 if shape.stroke == "none" else points,
                    zorder=order,
                )
            )
        case Line():
            axes.add_line(
                Line2D(
                    (shape.x1, shape.x2),
                    (shape.y1, shape.y2),
                    color=shape.color,
                    linewidth=shape.width * points,
                    linestyle=(0, (5, 4)) if shape.dashed else "-",
                    zorder=order,
                )
            )
        case Dot():
            axes.add_patch(
                Ellipse(
                    (shape.x, shape.y),
                    2 * shape.radius,
                    2 * shape.radius,
                    facecolor=shape.fill,
                    edgecolor=shape.stroke,
                    linewidth=points,
                    zorder=order,
                )
            )
        case Text():
            axes.text(
                shape.x,
                shape.y,
                shape.text,
                fontsize=shape.size * points,
                color=shape.color,
                ha=_ALIGN[shape.anchor],
                va="baseline",
                parse_math=False,
                weight="bold" if shape.bold else "normal",
                zorder=order,
            )
        case Bitmap():
            stride = 3 * shape.columns
            rows = [
                [
                    [byte / 255.0 for byte in shape.pixels[at : at + 3]]
                    for at in range(row * stride, (row + 1) * stride, 3)
                ]
                for row in range(shape.rows)
            ]
            axes.imshow(
                rows,
                extent=(shape.x, shape.x + shape.width, shape.y + shape.height, shape.y),
                interpolation="nearest",
                aspect="auto",
                zorder=order,
            )

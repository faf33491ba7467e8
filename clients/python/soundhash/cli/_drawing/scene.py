"""What a picture consists of. Pixels, from the top left corner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Anchor: TypeAlias = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Rect:
    """tip: shown when a pointer rests on it, where that is possible."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str = "none"
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    x1: float
    y1: float
    x2: float
    y2: float
    color: str
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """fill: "none" for a ring."""

    x: float
    y: float
    radius: float
    fill: str
    stroke: str
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """y: of the base line."""

    x: float
    y: float
    text: str
    size: float = 13.0
    color: str = "#1e293b"
    anchor: Anchor = "start"
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Bitmap:
    """``pixels``: columns · rows · 3 bytes of RGB, row by row, the top one first."""

    x: float
    y: float
    width: float
    height: float
    columns: int
    rows: int
    pixels: bytes


Shape: TypeAlias = Rect | Line | Dot | Text | Bitmap


@dataclass(slots=True)
class Scene:
    """Shapes in the order in which they are painted."""

    width: int
    height: int
    title: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Paints over what is there."""
        self.shapes += shapes

"""A scene as SVG, and as a page of its own around it. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import struct
import zlib
from html import escape

from soundhash.cli._drawing.scene import Bitmap, Dot, Line, Rect, Scene, Shape, Text

FONT = "DejaVu Sans, Verdana, Segoe UI, Helvetica, sans-serif"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ margin: 0; background: #fff }} svg {{ display: block; margin: 0 auto;
width: 100%; max-width: {width}px; height: auto }}</style>
</head>
<body>
{svg}
</body>
</html>
"""


def svg(scene: Scene) -> str:
    """The scene as an SVG document."""
    body = "\n".join(map(_shape, scene.shapes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {scene.width} {scene.height}"'
        f' width="{scene.width}" height="{scene.height}" font-family="{FONT}" role="img">\n'
        f"<title>{_clean(scene.title)}</title>\n"
        f'<rect width="{scene.width}" height="{scene.height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def page(scene: Scene) -> str:
    """The scene as an HTML page that needs nothing else."""
    return _PAGE.format(title=_clean(scene.title), width=scene.width, svg=svg(scene))


def _clean(text: str) -> str:
    """Text for XML, which has no place for control characters."""
    return escape("".join(c if c.isprintable() else " " for c in text))


def _shape(shape: Shape) -> str:
    match shape:
        case Rect():
            return (
                f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{max(0.0, shape.width):.1f}"'
                f' height="{max(0.0, shape.height):.1f}" fill="{shape.fill}"'
                f' stroke="{shape.stroke}">{_tip(shape.tip)}</rect>'
            )
        case Line():
            dashes = ' stroke-dasharray="5 4"' if shape.dashed else ""
            return (
                f'<line x1="{shape.x1:.1f}" y1="{shape.y1:.1f}" x2="{shape.x2:.1f}"'
                f' y2="{shape.y2:.1f}" stroke="{shape.color}" stroke-width="{shape.width}"'
                f"{dashes}/>"
            )
        case Dot():
            return (
                f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius}"'
                f' fill="{shape.fill}" stroke="{shape.stroke}">{_tip(shape.tip)}</circle>'
            )
        case Text():
            weight = ' font-weight="bold"' if shape.bold else ""
            return (
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size}"'
                f' fill="{shape.color}" text-anchor="{shape.anchor}"{weight}>'
                f"{_clean(shape.text)}</text>"
            )
        case Bitmap():
            data = base64.b64encode(png(shape)).decode()
            return (
                f'<image x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}"'
                f' height="{shape.height:.1f}" preserveAspectRatio="none"'
                f' style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
            )


def _tip(text: str) -> str:
    return f"<title>{_clean(text)}</title>" if text else ""


def png(bitmap: Bitmap) -> bytes:
    """A bitmap as a PNG file, a pixel a cell."""
    stride = 3 * bitmap.columns
    lines = b"".join(
        b"\0" + bitmap.pixels[row * stride : (row + 1) * stride] for row in range(bitmap.rows)
    )
    head = struct.pack(">IIBBBBB", bitmap.columns, bitmap.rows, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )

"""Pictures: a scene of plain shapes, written as SVG or HTML by itself, as PNG by matplotlib."""

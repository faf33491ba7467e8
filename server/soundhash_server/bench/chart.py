"""The figures as one picture: an SVG that every browser shows, made without a plotting library."""

import math
from collections.abc import Callable, Sequence
from html import escape

from soundhash_server.bench.degrade import CONDITIONS
from soundhash_server.bench.figures import Row, cost_rows, recall_rows, size_name, summary
from soundhash_server.bench.measure import KINDS, Recall, Report, Size

WIDTH = 1000
MARGIN = 48
INK, SOFT, GRID = "#1f2430", "#667080", "#e4e7ec"
COLOURS = dict(zip(KINDS, ("#0072b2", "#009e73", "#c77d00", "#6b7280"), strict=True))
"""Told apart by the colour-blind too (Okabe and Ito's palette, darkened for text)."""
ROW = 25

Scale = Callable[[float], float]


def chart(report: Report) -> str:
    """An SVG document: latency and recall against the catalogue's size, and a table."""
    rows = [*recall_rows(report), *cost_rows(report)]
    first_line, second_line = summary(report)
    table_top = 520
    height = table_top + ROW * len(rows) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" '
        f'fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(MARGIN, 44, "What this machine does as the catalogue grows", size=21, weight=600),
        _text(MARGIN, 68, first_line, colour=SOFT),
        _text(MARGIN, 87, second_line, colour=SOFT),
        *_latency(report.sizes, MARGIN + 36, 155, 275, 280),
        *_recall(report.sizes, 560, 155, 275, 280),
        *_table(rows, report.sizes, MARGIN, table_top),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _latency(
    sizes: Sequence[Size], left: float, top: float, width: float, height: float
) -> list[str]:
    low = min(one.median_ms for size in sizes for one in size.latency.values()) / 1.3
    high = max(one.p95_ms for size in sizes for one in size.latency.values()) * 1.2
    y = _log(low, high, top + height, top)
    out = _panel(
        sizes,
        (left, top, width, height),
        ("Milliseconds a clip", "dots: median; bars: up to the 95th percentile"),
        [(y(tick), f"{tick:,g}") for tick in _decades(low, high)],
    )
    series = {
        kind: [(y(size.latency[kind].median_ms), y(size.latency[kind].p95_ms)) for size in sizes]
        for kind in KINDS
    }
    names = {kind: f"{kind} {_ms(sizes[-1].latency[kind].median_ms)}" for kind in KINDS}
    bars = {kind: [(median, p95, median) for median, p95 in line] for kind, line in series.items()}
    return out + _series(sizes, bars, names, left, top, width, height)


def _recall(
    sizes: Sequence[Size], left: float, top: float, width: float, height: float
) -> list[str]:
    by_kind = {kind: [_together(size, kind) for size in sizes] for kind in KINDS[:3]}
    lowest = min(one.interval[0] for line in by_kind.values() for one in line)
    floor = max(0.0, math.floor(lowest * 10.0) / 10.0)
    step = 0.1 if floor < 0.75 else 0.05
    y = _linear(floor, 1.0, top + height, top)
    out = _panel(
        sizes,
        (left, top, width, height),
        ("Clips found", "dots: right recording and place; bars: 95 % bounds"),
        [
            (y(1.0 - n * step), f"{1.0 - n * step:.0%}")
            for n in range(round((1.0 - floor) / step) + 1)
        ],
    )
    bars = {
        kind: [(y(one.share), y(one.interval[1]), y(one.interval[0])) for one in line]
        for kind, line in by_kind.items()
    }
    names = {kind: f"{kind} {line[-1].share:.0%}" for kind, line in by_kind.items()}
    return out + _series(sizes, bars, names, left, top, width, height)


def _panel(
    sizes: Sequence[Size],
    box: tuple[float, float, float, float],
    titles: tuple[str, str],
    ticks: Sequence[tuple[float, str]],
) -> list[str]:
    """Titles, the grid and the axis of sizes; ``box``: left, top, width, height."""
    left, top, width, height = box
    x = _hours(sizes, left, width)
    out = [
        _text(left - 36, top - 32, titles[0], size=15, weight=600),
        _text(left - 36, top - 14, titles[1], colour=SOFT, size=12),
        _rule(left, top + height, left + width, colour=SOFT),
        _text(
            left + width / 2,
            top + height + 38,
            "hours of audio in the index",
            anchor="middle",
            colour=SOFT,
            size=12,
        ),
    ]
    for y, text in ticks:
        out.append(_rule(left, y, left + width))
        out.append(_text(left - 6, y + 4, text, anchor="end", colour=SOFT, size=12))
    for size in sizes:
        at = x(size.growth.hours)
        name = size_name(size)
        out.append(_text(at, top + height + 19, name, anchor="middle", colour=SOFT, size=12))
    return out


def _series(
    sizes: Sequence[Size],
    bars: dict[str, list[tuple[float, float, float]]],
    names: dict[str, str],
    left: float,
    top: float,
    width: float,
    height: float,
) -> list[str]:
    """Lines by kind through (y, top of its bar, bottom of its bar) at each size."""
    x = _hours(sizes, left, width)
    out: list[str] = []
    labels: list[tuple[float, str, str]] = []
    for place, (kind, line) in enumerate(bars.items()):
        colour = COLOURS[kind]
        # Side by side, so that equal ones are seen.
        at = [x(size.growth.hours) + 6 * (place - (len(bars) - 1) / 2) for size in sizes]
        for one, (_, upper, lower) in zip(at, line, strict=True):
            out.append(
                f'<path d="M{one:.1f} {lower:.1f}V{upper:.1f}" stroke="{colour}" '
                'stroke-width="3" opacity="0.35"/>'
            )
        out.append(_line([(one, y) for one, (y, _, _) in zip(at, line, strict=True)], colour))
        labels.append((line[-1][0], names[kind], colour))
    return out + _labels(labels, left + width + 8, top, top + height)


def _together(size: Size, kind: str) -> Recall:
    mine = [size.recall[c.name] for c in CONDITIONS if c.kind == kind]
    return Recall(sum(one.found for one in mine), sum(one.clips for one in mine))


def _table(rows: Sequence[Row], sizes: Sequence[Size], left: float, top: float) -> list[str]:
    first = 300.0
    column = min(150.0, (WIDTH - 2 * MARGIN - first) / len(sizes))
    out = []
    for n, size in enumerate(sizes):
        centre = left + first + column * (n + 0.5)
        out.append(_text(centre, top, size_name(size), anchor="middle", weight=600))
    for k, row in enumerate(rows):
        y = top + ROW * (k + 1)
        out.append(_text(left, y, row.name))
        for n, text in enumerate(row.cells):
            x = left + first + column * n
            if row.shares is not None:
                out.append(
                    f'<rect x="{x + 3:.1f}" y="{y - 16:.1f}" width="{column - 6:.1f}" '
                    f'height="{ROW - 4}" rx="3" fill="{_shade(row.shares[n])}"/>'
                )
            out.append(_text(x + column / 2, y, text, anchor="middle"))
    return out


def _shade(share: float) -> str:
    """From orange (nothing) over white (two thirds) to blue-green (all)."""
    share = min(1.0, max(0.0, share))
    if share < 2 / 3:
        weight, (r, g, b) = 1.0 - share * 1.5, (240, 150, 90)
    else:
        weight, (r, g, b) = 3.0 * share - 2.0, (120, 200, 180)
    red, green, blue = (round(255 + (c - 255) * weight) for c in (r, g, b))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def _log(low: float, high: float, start: float, end: float) -> Scale:
    span = math.log(high / low)
    return lambda value: start + (end - start) * math.log(value / low) / span


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _hours(sizes: Sequence[Size], left: float, width: float) -> Scale:
    first, last = sizes[0].growth.hours, sizes[-1].growth.hours
    if first == last:
        return lambda _: left + width / 2
    return _log(first, last, left + 20, left + width - 20)


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5 times the powers of ten between the two."""
    out = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        out += [m * 10.0**power for m in (1, 2, 5) if low <= m * 10.0**power <= high]
    return out


def _labels(
    labels: Sequence[tuple[float, str, str]], x: float, top: float, bottom: float
) -> list[str]:
    """Names beside the ends of lines, moved apart where they would overlap."""
    ordered = sorted(labels)
    least = 17.0
    ys = [y for y, _, _ in ordered]
    for n in range(1, len(ys)):
        ys[n] = max(ys[n], ys[n - 1] + least)
    over = max(0.0, ys[-1] - bottom)
    for n in reversed(range(len(ys))):
        ys[n] = min(ys[n], bottom - least * (len(ys) - 1 - n)) if over else ys[n]
    return [
        _text(x, max(top, y) + 4, text, colour=colour, weight=600)
        for y, (_, text, colour) in zip(ys, ordered, strict=True)
    ]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = INK,
    size: int = 13,
    weight: int = 400,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
    )


def _rule(x: float, y: float, to_x: float, colour: str = GRID) -> str:
    return f'<path d="M{x:.1f} {y:.1f}H{to_x:.1f}" stroke="{colour}"/>'


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points)
    return (
        f'<g stroke="{colour}" fill="none" stroke-width="2.5"><path d="{path}"/>'
        f'<g fill="{colour}" stroke="#fff" stroke-width="1">{dots}</g></g>'
    )

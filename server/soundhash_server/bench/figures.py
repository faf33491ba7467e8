"""The figures as rows of text, for the table on the screen and the one below the picture."""

import dataclasses
from collections.abc import Callable

from soundhash_server.bench.measure import Report, Size


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A figure at each size of the catalogue.

    cells   as they are shown
    shares  how good each is, 0 … 1, where that can be said
    """

    name: str
    cells: tuple[str, ...]
    shares: tuple[float, ...] | None = None


def size_name(size: Size) -> str:
    """8.1 h or 1,000 h."""
    hours = size.growth.hours
    return f"{hours:.1f} h" if hours < 9.95 else f"{hours:,.0f} h"


def summary(report: Report) -> tuple[str, str]:
    """What was measured on and with: two lines."""
    decode = "" if report.decode_x is None else f"decoding {report.decode_x:,.0f} ×, "
    together = "" if report.decode_x is None else f", together {report.ingest_x:,.0f} ×"
    clips = next(iter(report.sizes[0].recall.values())).clips
    return (
        f"{report.machine}, {report.cores} cores · one core: {decode}"
        f"fingerprinting {report.extract_x:,.0f} ×{together} real time",
        f"{report.recordings} recordings ({report.indexed_hours:.1f} h) among made-up music · "
        f"{clips} clips of {report.clip_s:g} s a condition",
    )


def latency_rows(report: Report) -> list[Row]:
    """Milliseconds by kind of clip."""
    return [
        Row(
            f"{kind}: ms a clip, median / p95",
            tuple(
                f"{size.latency[kind].median_ms:,.1f} / {size.latency[kind].p95_ms:,.1f}"
                for size in report.sizes
            ),
        )
        for kind in report.sizes[0].latency
    ]


def recall_rows(report: Report) -> list[Row]:
    """Clips found by condition, and those that should not have been."""
    rows = [
        Row(
            f"found: {name}",
            tuple(f"{one.recall[name].share:.0%}" for one in report.sizes),
            tuple(one.recall[name].share for one in report.sizes),
        )
        for name in report.sizes[0].recall
    ]
    wrong = tuple(one.answered / one.absent for one in report.sizes)
    rows.append(
        Row(
            "not indexed, but answered",
            tuple(f"{one.answered} of {one.absent}" for one in report.sizes),
            # One in five is as bad as can be.
            tuple(max(0.0, 1.0 - 5.0 * share) for share in wrong),
        )
    )
    return rows


def cost_rows(report: Report) -> list[Row]:
    """Throughput, sizes and speeds."""
    return [
        *(
            Row(
                "clips a second, one caller"
                if callers == 1
                else f"clips a second, {callers} callers at once",
                tuple(_rate(size.throughput[callers]) for size in report.sizes),
            )
            for callers in report.sizes[0].throughput
        ),
        _row(report, "index that is searched", lambda size: _bytes(size.growth.index_bytes)),
        _row(report, "index on disk", lambda size: _bytes(size.growth.disk_bytes)),
        _row(
            report,
            "hours indexed a minute, one core",
            lambda size: f"{size.growth.hours_a_minute:,.0f}",
        ),
    ]


def table(report: Report) -> str:
    """All figures as plain text."""
    head = Row("", tuple(map(size_name, report.sizes)))
    rows = [head, *latency_rows(report), *recall_rows(report), *cost_rows(report)]
    widths = [max(len(row.cells[n]) for row in rows) for n in range(len(report.sizes))]
    first = max(len(row.name) for row in rows)
    lines = [*summary(report), ""]
    for row in rows:
        padded = (cell.rjust(width) for cell, width in zip(row.cells, widths, strict=True))
        lines.append("  ".join([row.name.ljust(first), *padded]).rstrip())
    return "\n".join(lines)


def _row(report: Report, name: str, cell: Callable[[Size], str]) -> Row:
    return Row(name, tuple(map(cell, report.sizes)))


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 20.0 else f"{value:.1f}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"

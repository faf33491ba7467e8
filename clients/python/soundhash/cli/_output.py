"""What people and machines get to see."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape

if TYPE_CHECKING:
    from soundhash import Match, MissingPart

__all__ = [
    "clock",
    "console",
    "escape",
    "length",
    "linked",
    "match_json",
    "moment",
    "named",
    "no_match",
    "place",
    "place_end",
    "print_error",
    "print_json",
    "print_missing",
    "print_pairs",
    "print_table",
    "size",
    "span",
    "to_json",
]

_UNBOUNDED_COLUMNS = 100_000


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr: styled on a terminal; plain and never wrapped elsewhere."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = _UNBOUNDED_COLUMNS
    return made


def to_json(value: Any) -> Any:
    """A result as what JSON knows: times in ISO 8601, bytes in base64, no empty surprises."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def print_json(value: Any) -> None:
    """One line of JSON on stdout, out at once so that a pipe's reader can go on."""
    sys.stdout.write(json.dumps(to_json(value), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_error(text: str) -> None:
    """One line on stderr."""
    console(stderr=True).print(f"[red]error:[/] {escape(text)}", soft_wrap=True)


def print_missing(missing: Sequence[MissingPart], where: str = "") -> None:
    """One line on stderr about parts of the index that did not answer, if there are any."""
    if missing:
        parts = ", ".join(f"{one.part} ({one.reason.lower()})" for one in missing)
        share = f"{sum(one.share for one in missing):.0%}"
        text = f"{where}{share} of the index did not answer: {parts}"
        console(stderr=True).print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)


def no_match(missing: Sequence[MissingPart]) -> str:
    """What to say where nothing was found."""
    return "no match in what answered" if missing else "no match"


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """A table on stdout; cells may have markup.

    right: columns that are aligned to the right. whole: others that are never broken over
    lines. On a terminal, columns in which nothing stands are left out.
    """
    from rich import box  # noqa: PLC0415 - not for `--help`
    from rich.table import Table  # noqa: PLC0415

    out = console()
    table = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=False)
    rows = list(rows)
    if out.is_terminal:
        shown = [n for n in range(len(columns)) if any(row[n] for row in rows)]
        columns = [columns[n] for n in shown]
        rows = [[row[n] for n in shown] for row in rows]
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column in right or column in whole,
        )
    for row in rows:
        table.add_row(*row)
    _print(out, table)


def _print(out: Console, table: RenderableType) -> None:
    if out.is_terminal:
        out.print(table)
        return
    # Tables are padded to their width, which is of no use to what reads a pipe.
    with out.capture() as text:
        out.print(table)
    for line in text.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, a line each."""
    from rich.table import Table  # noqa: PLC0415 - not for `--help`

    table = Table.grid(padding=(0, 2))
    for name, value in pairs:
        table.add_row(f"[dim]{name}[/]", escape(value))
    _print(console(), table)


def clock(value_s: float) -> str:
    """Seconds as 1:02:03.4 or 2:03.4."""
    sign, tenths = "-" if value_s < -0.05 else "", round(abs(value_s) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}:{rest / 10:04.1f}"
    return sign + (f"{hours}:{text.zfill(7)}" if hours else text)


def span(start_s: float, end_s: float) -> str:
    """A range of time."""
    return f"{clock(start_s)} – {clock(end_s)}"


def length(value_s: float) -> str:
    """A long time in words: 3 h 05 min, 4 min 05 s or 5.0 s."""
    if value_s < 60:
        return f"{value_s:.1f} s"
    minutes, seconds = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def size(value_bytes: int) -> str:
    """Bytes in a readable unit."""
    value, unit = float(value_bytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def moment(value: datetime | None) -> str:
    """A time in the local zone, to the second."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def match_json(found: Match) -> dict[str, Any]:
    """A match as `match --json` and `listen --json` print it; no id while it is provisional."""
    return {
        "id": found.id,
        "video_id": found.video_id,
        "title": found.title,
        "source_url": found.source_url,
        "external_id": found.external_id,
        "clip_start_s": found.clip_start_s,
        "clip_end_s": found.clip_end_s,
        "video_start_s": found.video_start_s,
        "video_end_s": found.video_end_s,
        "speed": found.speed,
        "pitch": found.pitch,
        "confidence": found.confidence,
        "on_air": to_json(found.on_air),
    }


def named(found: Match) -> str:
    """What a match is with: a video's title that links to it, or the station that it was on;
    markup."""
    if found.on_air is None:
        return linked(found.title, found.source_url)
    return f"on {escape(found.on_air.monitor_name)}"


def place(found: Match) -> str:
    """Where in the video, or when it was on the air, in the local zone."""
    if found.on_air is None:
        return span(found.video_start_s, found.video_end_s)
    end = found.on_air.end_time.astimezone()
    return f"{_air_moment(found.on_air.start_time)} – {end:%H:%M:%S}"


def place_end(found: Match) -> str:
    """How far it has come in the video, or when that was on the air."""
    if found.on_air is None:
        return clock(found.video_end_s)
    return _air_moment(found.on_air.end_time)


def _air_moment(value: datetime) -> str:
    local = value.astimezone()
    year = "" if local.year == datetime.now(local.tzinfo).year else f" {local.year}"
    return f"{local.day} {local:%b}{year} {local:%H:%M:%S}"


def linked(title: str, url: str) -> str:
    """A title that a terminal opens the source of; markup."""
    # Brackets would end the markup's tag.
    safe = url.replace("[", "%5B").replace("]", "%5D")
    return f"[link={safe}]{escape(title)}[/link]" if url else escape(title)

"""All commands in one place."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from soundhash import __version__
from soundhash.cli import (
    _auth,
    _bench,
    _catalog,
    _channels,
    _clips,
    _duplicates,
    _explain,
    _ingest,
    _jobs,
    _listen,
    _media,
    _monitors,
    _operate,
    _platform,
    _twitch,
)
from soundhash.cli._connection import AddressOption, Connection


class _Groups(TyperGroup):
    """Lists the commands under headings. Typer's own panels would load half of rich for it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        headings: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            panel = str(getattr(command, "rich_help_panel", ""))
            line = (name.ljust(width), command.get_short_help_str(formatter.width))
            headings.setdefault(panel, []).append(line)
        for panel, lines in headings.items():
            with formatter.section(panel):
                formatter.write_dl(lines)


app = typer.Typer(
    name="soundhash",
    cls=_Groups,
    help="SoundHash tells you which video a clip comes from, and where in it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"soundhash {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    address: AddressOption = None,
    ca: Annotated[
        str | None,
        typer.Option(
            "--ca",
            metavar="FILE",
            help="Use TLS and trust this authority (PEM); 'system' trusts the system's.",
            envvar="SOUNDHASH_CA",
            show_envvar=True,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    context.obj = Connection(address=address, ca=ca)


PLATFORM, INGEST, MATCH, CATALOGUE, OPERATE = (
    "Run the platform",
    "Bring audio in",
    "Find where audio is from",
    "What is indexed",
    "See and tend the server",
)

# Options that a command does not know are for the platform to judge.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

for name, function in (
    ("up", _platform.up),
    ("serve", _platform.serve),
    ("work", _platform.work),
    ("migrate", _platform.migrate),
    ("doctor", _platform.doctor),
):
    app.command(name, rich_help_panel=PLATFORM, context_settings=_PASSED_ON)(function)
app.add_typer(_auth.auth, name="auth", rich_help_panel=PLATFORM)
app.command("bench", rich_help_panel=PLATFORM)(_bench.bench)
app.command("ingest", rich_help_panel=INGEST)(_ingest.ingest)
app.command("jobs", rich_help_panel=INGEST)(_jobs.jobs)
app.add_typer(_channels.channels, name="channels", rich_help_panel=INGEST)
app.add_typer(_twitch.clips, name="clips", rich_help_panel=INGEST)
app.command("match", rich_help_panel=MATCH)(_clips.match)
app.command("listen", rich_help_panel=MATCH)(_listen.listen)
app.command("matches", rich_help_panel=MATCH)(_clips.matches)
app.command("explain", rich_help_panel=MATCH)(_explain.explain)
app.command("compare", rich_help_panel=MATCH)(_clips.compare)
app.command("fingerprint", rich_help_panel=MATCH)(_clips.fingerprint)
app.add_typer(_monitors.monitors, name="monitors", rich_help_panel=MATCH)
app.command("videos", rich_help_panel=CATALOGUE)(_catalog.videos)
app.command("update", rich_help_panel=CATALOGUE)(_catalog.update)
app.command("delete", rich_help_panel=CATALOGUE)(_catalog.delete)
app.command("duplicates", rich_help_panel=CATALOGUE)(_duplicates.duplicates)
app.add_typer(_media.media, name="media", rich_help_panel=CATALOGUE)
app.command("stats", rich_help_panel=OPERATE)(_operate.stats)
app.command("index", rich_help_panel=OPERATE)(_operate.index)

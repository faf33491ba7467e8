"""How commands are told which monitors they are about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from soundhash import Client, Monitor

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

MonitorArgument = Annotated[
    str, typer.Argument(metavar="MONITOR", help="Its UUID, name or URL.", show_default=False)
]
MonitorArguments = Annotated[
    list[str], typer.Argument(metavar="MONITOR", help="UUIDs, names or URLs.", show_default=False)
]


def find(client: Client, name: str) -> Monitor:
    """The monitor by its UUID, name, or URL as it is shown. Raises typer.BadParameter."""
    if _UUID.fullmatch(name):
        return client.get_monitor(name)
    wanted = name.casefold()
    found = [
        monitor
        for monitor in client.monitors()
        if wanted in (monitor.config.name.casefold(), monitor.url.casefold())
    ]
    if len(found) != 1:
        many = "several monitors are" if found else "no monitor is"
        raise typer.BadParameter(f"{many} called {name!r}; see `soundhash monitors list`")
    return found[0]


def find_id(client: Client, name: str) -> str:
    """The UUID of a monitor; empty for no name. Raises typer.BadParameter."""
    if not name or _UUID.fullmatch(name):
        return name
    return find(client, name).id

"""How commands reach the server, and the options that many of them share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from soundhash import AsyncClient, Client

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The server's address, or unix:PATH. Default: SOUNDHASH_ADDRESS, "
        "else 127.0.0.1:50051.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
LimitOption = Annotated[
    int, typer.Option("--limit", min=1, metavar="N", help="Most rows to show.", show_default=True)
]
TopOption = Annotated[
    int,
    typer.Option(
        "--top", min=1, max=100, metavar="N", help="Most videos to answer.", show_default=True
    ),
]
ConfidenceOption = Annotated[
    float,
    typer.Option(
        "--min-confidence",
        min=0.0,
        max=1.0,
        metavar="P",
        help="Answer nothing below this confidence (0 to 1); can only raise the server's bound.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is, as the options before the command say."""

    address: str | None = None
    ca: str | None = None

    def arguments(self, address: str | None) -> dict[str, Any]:
        """Arguments for a client; the command's own address wins."""
        from soundhash import TlsConfig  # noqa: PLC0415 - loads gRPC

        tls = None
        if self.ca is not None:
            trusted = None if self.ca == "system" else Path(self.ca).read_bytes()
            tls = TlsConfig(root_certificates=trusted)
        return {"address": address or self.address, "tls": tls}


def connect(context: typer.Context, address: str | None) -> Client:
    """A client for this command."""
    from soundhash import Client  # noqa: PLC0415 - loads gRPC

    connection: Connection = context.obj
    return Client(**connection.arguments(address))


def connect_async(
    context: typer.Context, address: str | None, *, max_retries: int = 3
) -> AsyncClient:
    """An asyncio client for this command."""
    from soundhash import AsyncClient  # noqa: PLC0415 - loads gRPC

    connection: Connection = context.obj
    return AsyncClient(**connection.arguments(address), max_retries=max_retries)

"""The connection of a client for plain code."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Self

from soundhash._config import ClientConfig, TlsConfig, resolve_address
from soundhash._stubs import Stubs
from soundhash._transport import Transport


class SyncConnection:
    """What the methods of a client share: its address, its channel, its end."""

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout_s: float = 30.0,
        tls: TlsConfig | None = None,
        token: str | None = None,
        max_retries: int = 3,
    ) -> None:
        config = ClientConfig(resolve_address(address), timeout_s, tls, token, max_retries)
        self._transport = Transport(config)

    @property
    def address(self) -> str:
        """The server's address."""
        return self._transport.config.address

    @property
    def raw(self) -> Stubs:
        """The generated stubs on this client's channel, for what the methods do not offer."""
        return self._transport.stubs

    def close(self) -> None:
        """Ends all calls and the connection. Closing again does nothing."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None and transport.is_open:
            text = f"unclosed {self!r}: use it in a with statement, or close it"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<soundhash.{type(self).__name__} {self.address}>"

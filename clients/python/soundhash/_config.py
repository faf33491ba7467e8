"""Where the server is and how to talk to it."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

import grpc

from soundhash._errors import InvalidArgument

DEFAULT_ADDRESS = "127.0.0.1:50051"
ADDRESS_VARIABLE = "SOUNDHASH_ADDRESS"
DEFAULT_PORT = 50051

_MAX_MESSAGE_BYTES = 40 << 20
"""Above the 32 MiB of a clip or a fingerprint, with room for what is around them."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS to the server.

    root_certificates: PEM bytes of the authorities to trust; None: those of the system.
    client_certificate, client_key: PEM bytes by which the client shows who it is.
    server_name: the name that the server's certificate has, when it is not the address.
    """

    root_certificates: bytes | None = None
    client_certificate: bytes | None = None
    client_key: bytes | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What both clients are made from.

    address: "host:port" or "unix:path". timeout_s: limit of a call that answers once, with
    its retries. tls: None for plain text. token: sent as a bearer token. max_retries: of
    calls that are safe to repeat.
    """

    address: str = DEFAULT_ADDRESS
    timeout_s: float = 30.0
    tls: TlsConfig | None = None
    token: str | None = None
    max_retries: int = 3

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0, not {self.timeout_s}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more, not {self.max_retries}")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries along."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel_options(self) -> list[tuple[str, int | str]]:
        """Options of the gRPC channel."""
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            # A dead peer is noticed within a minute on streams that have no deadline.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # A server that is being restarted is found again soon.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
            # Retrying is done above gRPC, where the server's RetryInfo is understood.
            ("grpc.enable_retries", 0),
            ("grpc.primary_user_agent", "soundhash-python"),
        ]
        if is_local(self.address):
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials of the channel, or None for plain text."""
        if self.tls is None:
            return None
        return grpc.ssl_channel_credentials(
            self.tls.root_certificates, self.tls.client_key, self.tls.client_certificate
        )


def resolve_address(address: str | None) -> str:
    """The address to use: the given one, else SOUNDHASH_ADDRESS, else 127.0.0.1:50051.

    The port may be left out. Raises InvalidArgument (ADDRESS_INVALID) for a URL or a port
    that is none.
    """
    text = (address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS).strip()
    if text.startswith("unix:"):
        return text
    host, port = _split(text)
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgument(
            f"{text!r} is not an address.",
            reason="ADDRESS_INVALID",
            remedy="Write it as host:port or unix:path, for example 127.0.0.1:50051.",
            metadata={"address": text},
        )
    return f"{host}:{port}"


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text.partition("]")
        return host + "]", rest.removeprefix(":") or str(DEFAULT_PORT)
    if text.count(":") > 1:
        return "", ""
    host, _, port = text.partition(":")
    return host, port or str(DEFAULT_PORT)


def is_local(address: str) -> bool:
    """Whether an address is on this machine, where no proxy stands between."""
    if address.startswith("unix:"):
        return True
    host = _split(address)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""A real gRPC server that answers as a test tells it to, and both clients behind one face."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

import soundhash
from soundhash.v1 import (
    admin_pb2,
    catalog_pb2,
    channels_pb2,
    clips_pb2,
    fingerprint_pb2,
    ingest_pb2,
    match_pb2,
    media_pb2,
    monitors_pb2,
)
from soundhash_server.errors import ErrorKind, PlatformError
from soundhash_server.rpc.errors import to_status

MODULES: tuple[ModuleType, ...] = (
    admin_pb2,
    catalog_pb2,
    channels_pb2,
    clips_pb2,
    fingerprint_pb2,
    ingest_pb2,
    match_pb2,
    media_pb2,
    monitors_pb2,
)

Reply = Callable[[Any, grpc.ServicerContext], Any]
"""Gets the request (or their iterator) and gives the answer (or an iterator), or aborts."""


def rpcs() -> dict[str, MethodDescriptor]:
    """Every method of our API by its path."""
    return {
        f"/{service.full_name}/{method.name}": method
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


@dataclass
class Received:
    """A call as it reached the server."""

    path: str
    metadata: dict[str, str]
    time_left_s: float | None
    cancelled: threading.Event = field(default_factory=threading.Event)


class ScriptedServer(grpc.GenericRpcHandler):
    """Answers each method with its replies in turn, the last one for ever after."""

    def __init__(self) -> None:
        self.calls: list[Received] = []
        self.address = ""
        self._replies: dict[str, list[Reply]] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._methods: dict[str, tuple[Any, Any, bool, bool]] = {
            path: (
                GetMessageClass(method.input_type),
                GetMessageClass(method.output_type),
                method.client_streaming,
                method.server_streaming,
            )
            for path, method in rpcs().items()
        }
        self._methods["/grpc.health.v1.Health/Check"] = (
            health_pb2.HealthCheckRequest,
            health_pb2.HealthCheckResponse,
            False,
            False,
        )

    def on(self, method: str, *replies: Reply) -> None:
        """Sets what a method ("GetJob") answers."""
        path = next(path for path in self._methods if path.endswith(f"/{method}"))
        self._replies[path] = list(replies)

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(call.path.endswith(f"/{method}") for call in self.calls)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        path: str = details.method
        if path not in self._methods:
            return None
        request, response, streams_in, streams_out = self._methods[path]

        def serve(given: Any, context: grpc.ServicerContext) -> Any:
            call = Received(
                path,
                {key: str(value) for key, value in context.invocation_metadata()},
                context.time_remaining(),
            )
            if not context.add_callback(call.cancelled.set):
                call.cancelled.set()  # it is over already
            number = self._counts[path]
            self._counts[path] += 1
            self.calls.append(call)
            replies = self._replies[path]
            return replies[min(number, len(replies) - 1)](given, context)

        def serve_stream(given: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from serve(given, context)

        name = (
            f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
            "_rpc_method_handler"
        )
        made: grpc.RpcMethodHandler[Any, Any] = getattr(grpc, name)(
            serve_stream if streams_out else serve,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        return made


@contextmanager
def scripted_server(
    address: str = "127.0.0.1:0", *, tls: tuple[bytes, bytes] | None = None
) -> Iterator[ScriptedServer]:
    """Runs a scripted server on a free port, or on "unix:PATH"; tls: key and certificate."""
    handler = ScriptedServer()
    with ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", 64 << 20)])
        server.add_generic_rpc_handlers((handler,))
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, grpc.ssl_server_credentials([tls]))
        handler.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        server.start()
        try:
            yield handler
        finally:
            server.stop(0).wait()


def answer(message: Any) -> Reply:
    """Answers with this message."""
    return lambda request, context: message


def fail(
    kind: ErrorKind,
    reason: str = "SOME_REASON",
    *,
    retry_after_s: float | None = None,
    **details: Any,
) -> Reply:
    """Fails as the real server does."""
    error = PlatformError(
        kind, reason, "It went wrong.", "Do better.", retry_after_s=retry_after_s, **details
    )

    def reply(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort_with_status(to_status(error, "request-1"))

    return reply


def fail_plainly(code: grpc.StatusCode, text: str = "plain") -> Reply:
    """Fails with a status that has no details."""

    def reply(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(code, text)

    return reply


class Caller:
    """One of the two clients, called in the same way."""

    def __init__(self, kind: str, address: str, **options: Any) -> None:
        self.kind = kind
        self.client: soundhash.Client | soundhash.AsyncClient
        made = soundhash.Client if kind == "plain" else soundhash.AsyncClient
        self.client = made(address, **options)

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a method; what it yields comes as a list."""
        if self.kind == "plain":
            return await asyncio.to_thread(self._plain, method, args, kwargs)
        made = getattr(self.client, method)(*args, **kwargs)
        if hasattr(made, "__aiter__"):
            return [item async for item in made]
        return await made

    def _plain(self, method: str, args: Any, kwargs: Any) -> Any:
        made = getattr(self.client, method)(*args, **kwargs)
        return list(made) if hasattr(made, "__next__") else made

    async def close(self) -> None:
        closing = self.client.close()
        if inspect.isawaitable(closing):
            await closing

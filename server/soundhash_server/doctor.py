"""``soundhash doctor``: checks everything that a newcomer can get wrong, and says the fix."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import errno
import importlib.metadata
import importlib.util
import io
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from soundhash_server.embedded import Daemon, EmbeddedError
from soundhash_server.embedded_platform import data_lock
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.errors import PlatformError
from soundhash_server.locks import FileLock
from soundhash_server.queue import JobQueue
from soundhash_server.settings import Settings
from soundhash_server.store.migrate import status

MIN_PYTHON = (3, 11)
MIN_POSTGRES = 15
MIN_OPEN_FILES = 1024
MAX_CLOCK_SKEW_S = 5.0
_TIMEOUT_S = 5.0
_PACKAGES = ("av", "numpy", "scipy", "numba", "asyncpg", "arq", "redis", "grpcio", "protovalidate")
_JS_RUNTIMES = ("deno", "node", "bun", "qjs")


class Level(enum.Enum):
    OK = "ok"
    HINT = "hint"
    """Something optional is missing."""
    PROBLEM = "problem"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    level: Level
    subject: str
    text: str
    fix: str = ""
    """What to do about it; empty when all is well."""


def doctor(settings: Settings) -> int:
    """Runs every check and prints a line for each; returns 1 if there is a problem."""
    worst = 0
    for check in CHECKS:
        for finding in _run(check, settings):
            worst |= finding.level is Level.PROBLEM
            fix = f"\n         -> {finding.fix}" if finding.fix else ""
            sys.stdout.write(f"{finding.level.value:<8} {finding.subject}: {finding.text}{fix}\n")
            sys.stdout.flush()
    return int(worst)


def _run(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except Exception as error:
        # A check that fails in a way nobody thought of is a finding as well.
        subject = check.__name__.removeprefix("check_").replace("_", " ")
        yield Finding(
            Level.PROBLEM, subject, f"{type(error).__name__}: {error}", "Report this, please."
        )


def check_python(settings: Settings) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        yield Finding(Level.PROBLEM, "python", f"{found} is too old", "Install Python 3.11+.")
    else:
        yield Finding(Level.OK, "python", found)


def check_packages(settings: Settings) -> Iterator[Finding]:
    missing, found = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding(
            Level.PROBLEM,
            "packages",
            f"not installed: {', '.join(missing)}",
            "pip install 'soundhash[server,workers]'",
        )
    else:
        yield Finding(Level.OK, "packages", ", ".join(found))


def check_data_dir(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir.absolute()
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            Level.PROBLEM,
            "data folder",
            f"{folder} cannot be written",
            "Choose another with --data-dir or SOUNDHASH_DATA_DIR, or correct its rights.",
        )
        return
    free = shutil.disk_usage(existing).free
    text = f"{folder}, {free / (1 << 30):.1f} GiB free"
    if free < settings.min_free_disk_bytes:
        yield Finding(
            Level.PROBLEM,
            "data folder",
            text,
            f"Free some space: uploads stop below {settings.min_free_disk_bytes >> 20} MiB.",
        )
    else:
        yield Finding(Level.OK, "data folder", text)


def check_limits(settings: Settings) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        yield Finding(
            Level.PROBLEM, "open files", f"limited to {soft}", f"ulimit -n {MIN_OPEN_FILES}"
        )
    else:
        yield Finding(Level.OK, "open files", f"limited to {soft}")


def check_port(settings: Settings) -> Iterator[Finding]:
    where = f"{settings.host}:{settings.port}"
    if settings.tls_cert:
        for path in filter(None, (settings.tls_cert, settings.tls_key, settings.tls_client_ca)):
            if not os.access(path, os.R_OK):
                yield Finding(Level.PROBLEM, "tls", f"{path} cannot be read", "Correct the path.")
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family[0], socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(family[4])
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            yield Finding(Level.PROBLEM, "port", f"{where}: {error}", "Correct --host and --port.")
        elif _serves(settings):
            yield Finding(Level.OK, "port", f"a SoundHash server is ready on {where}")
        else:
            yield Finding(
                Level.PROBLEM,
                "port",
                f"{where} is taken, and no ready SoundHash server answers there",
                "Choose another with --port or SOUNDHASH_PORT, or end what listens there.",
            )
        return
    yield Finding(Level.OK, "port", f"{where} is free")


def _serves(settings: Settings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    address = f"{host}:{settings.port}"
    channel = grpc.insecure_channel(address)
    if settings.tls_cert:
        roots = Path(settings.tls_cert).read_bytes()
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots))
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S
            )
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def check_database(settings: Settings) -> Iterator[Finding]:
    if settings.database_url:
        yield from _check_database_url(settings.database_url, "Check SOUNDHASH_DATABASE_URL.")
        return
    own = Postgres(settings.data_dir)
    if own.left_behind() is not None:
        yield from _check_database_url(own.url, "See postgres/server.log in the data folder.")
    elif own.work_dir.exists():
        yield from _try_embedded(own, data_lock(settings))
    else:
        with tempfile.TemporaryDirectory(prefix="soundhash-doctor-") as folder:
            yield from _try_embedded(Postgres(Path(folder)), None)


def _try_embedded(server: Daemon, lock: FileLock | None) -> Iterator[Finding]:
    subject = f"embedded {server.name}"
    if lock is not None and not lock.try_acquire():
        yield Finding(Level.HINT, subject, "is just being started or stopped", "Run this again.")
        return
    began = time.monotonic()
    try:
        server.start()
    except EmbeddedError as error:
        yield Finding(Level.PROBLEM, subject, "does not start", str(error))
    else:
        took_s = time.monotonic() - began
        yield Finding(Level.OK, subject, f"starts in {took_s:.1f} s")
        if lock is not None and isinstance(server, Postgres):
            yield from _check_database_url(server.url, "See server.log beside it.")
    finally:
        server.stop()
        if lock is not None:
            lock.release()


def _check_database_url(url: str, fix: str) -> Iterator[Finding]:
    try:
        version, skew_s = asyncio.run(_ask_database(url))
        schema = asyncio.run(status(url))
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as e:
        yield Finding(Level.PROBLEM, "database", f"cannot be used: {type(e).__name__}: {e}", fix)
        return
    except PlatformError as error:
        yield Finding(Level.PROBLEM, "database", error.message, fix)
        return
    if version < MIN_POSTGRES:
        yield Finding(
            Level.PROBLEM,
            "database",
            f"PostgreSQL {version} is too old",
            f"Use PostgreSQL {MIN_POSTGRES} or later.",
        )
    else:
        yield Finding(Level.OK, "database", f"PostgreSQL {version} answers")
    if schema.unknown or schema.changed:
        names = ", ".join(schema.unknown + schema.changed)
        yield Finding(
            Level.PROBLEM,
            "schema",
            f"the database has migrations that this version does not know: {names}",
            "Run the version of SoundHash that made them, or a newer one.",
        )
    elif schema.pending:
        yield Finding(
            Level.PROBLEM, "schema", f"missing: {', '.join(schema.pending)}", "soundhash migrate"
        )
    else:
        yield Finding(Level.OK, "schema", f"up to date ({schema.applied[-1]})")
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        yield Finding(
            Level.PROBLEM,
            "clock",
            f"{skew_s:+.0f} s off the database's",
            "Let both machines keep their time by NTP.",
        )
    else:
        yield Finding(Level.OK, "clock", "agrees with the database's")


async def _ask_database(url: str) -> tuple[int, float]:
    """Major version, and how far our clock is ahead in seconds."""
    connection = await asyncpg.connect(url, timeout=_TIMEOUT_S)
    try:
        theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        return connection.get_server_version().major, time.time() - theirs
    finally:
        await connection.close()


def check_postings(settings: Settings) -> Iterator[Finding]:
    urls = settings.postings_urls.split()
    if not urls:
        return
    # Imported here: they load the engine.
    from soundhash_server.store.posting_rows import postings_migrations  # noqa: PLC0415
    from soundhash_server.store.posting_shard import address  # noqa: PLC0415

    for i, url in enumerate(urls):
        subject = f"postings {i + 1}/{len(urls)}"
        fix = "Check SOUNDHASH_POSTINGS_URLS; what lies there is not found meanwhile."
        try:
            version, _ = asyncio.run(_ask_database(url))
            schema = asyncio.run(status(url, postings_migrations()))
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            text = f"{address(url)} cannot be used: {type(error).__name__}: {error}"
            yield Finding(Level.PROBLEM, subject, text, fix)
            continue
        except PlatformError as error:
            yield Finding(Level.PROBLEM, subject, f"{address(url)}: {error.message}", fix)
            continue
        if version < MIN_POSTGRES:
            text, fix = f"PostgreSQL {version} is too old", f"Use {MIN_POSTGRES} or later."
            yield Finding(Level.PROBLEM, subject, text, fix)
        elif schema.unknown or schema.changed:
            text = f"{address(url)} is a database of another kind or of newer code"
            yield Finding(Level.PROBLEM, subject, text, "Give it a database of its own.")
        else:
            made = "ready" if schema.applied else "empty: a server fills it"
            yield Finding(Level.OK, subject, f"PostgreSQL {version} at {address(url)}, {made}")


def check_queue(settings: Settings) -> Iterator[Finding]:
    url, fix = settings.redis_url, "Check SOUNDHASH_REDIS_URL."
    if not url:
        own = Valkey(settings.data_dir)
        if own.left_behind() is None:
            with tempfile.TemporaryDirectory(prefix="soundhash-doctor-") as folder:
                yield from _try_embedded(Valkey(Path(folder)), None)
            return
        url, fix = own.url, "See valkey/server.log in the data folder."
    try:
        asyncio.run(_ping(url))
    except Exception as error:
        yield Finding(Level.PROBLEM, "queue", f"{type(error).__name__}: {error}", fix)
    else:
        yield Finding(Level.OK, "queue", "answers")


async def _ping(url: str) -> None:
    queue = JobQueue.connect(url)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            if not await queue.ping():
                raise ConnectionError("no answer")
    finally:
        await queue.close()


def check_engine(settings: Settings) -> Iterator[Finding]:
    # Imported here: it is heavy, and a broken installation shall not keep us from starting.
    from soundhash_engine.decode import decode_bytes  # noqa: PLC0415
    from soundhash_engine.warm import warm  # noqa: PLC0415

    samples = len(decode_bytes(_tone()))
    yield Finding(Level.OK, "decoding", f"a WAV of 1 s gives {samples} samples")
    began = time.monotonic()
    warm()
    took_s = time.monotonic() - began
    yield Finding(Level.OK, "kernels", f"compiled and loaded in {took_s:.1f} s")


def _tone() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(8000)
        sink.writeframes(b"".join((i * 997 % 20011).to_bytes(2, "little") for i in range(8000)))
    return out.getvalue()


def check_download(settings: Settings) -> Iterator[Finding]:
    if importlib.util.find_spec("yt_dlp") is None:
        yield Finding(
            Level.PROBLEM,
            "yt-dlp",
            "is not installed: URLs of pages cannot be ingested",
            "pip install 'soundhash[workers]'",
        )
        return
    yield Finding(Level.OK, "yt-dlp", importlib.metadata.version("yt-dlp"))
    runtime = next(filter(shutil.which, _JS_RUNTIMES), None)
    if runtime is None:
        yield Finding(
            Level.HINT,
            "JavaScript",
            "no runtime found; yt-dlp needs one for YouTube, for nothing else",
            "Install Deno or Node.js.",
        )
    else:
        yield Finding(Level.OK, "JavaScript", f"{runtime} found")


CHECKS = (
    check_python,
    check_packages,
    check_data_dir,
    check_limits,
    check_port,
    check_database,
    check_postings,
    check_queue,
    check_engine,
    check_download,
)

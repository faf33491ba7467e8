"""Every setting of the platform, in one place.

Each field is read from the environment variable ``SOUNDHASH_<FIELD NAME IN CAPITALS>``;
a value that cannot be read is refused at start with the variable's name and what it must be.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

PREFIX = "SOUNDHASH_"
DEFAULT_DATA_DIR = Path(platformdirs.user_data_dir("soundhash", appauthor=False))


class SettingsError(ValueError):
    """A setting cannot be used; the message names the variable and says what it must be."""


def setting(
    default: object, doc: str, *, minimum: float | None = None, maximum: float | None = None
) -> typing.Any:
    """A documented setting; ``minimum`` and ``maximum`` bound numbers."""
    return field(default=default, metadata={"doc": doc, "minimum": minimum, "maximum": maximum})


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of server, workers and the embedded platform. Sizes in bytes, times in seconds."""

    data_dir: Path = setting(
        DEFAULT_DATA_DIR,
        "Folder of everything that is kept: embedded database and queue, uploads, index volumes.",
    )
    database_url: str = setting(
        "", "PostgreSQL 15+ URL. Empty: the embedded one (development, demo, tests)."
    )
    redis_url: str = setting("", "Redis or Valkey URL. Empty: the embedded one.")
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(50051, "TCP port to listen on; 0 picks a free one.", minimum=0)
    tls_cert: str = setting("", "Path of the server's certificate chain (PEM). Empty: no TLS.")
    tls_key: str = setting("", "Path of the server's private key (PEM).")
    tls_client_ca: str = setting("", "Path of the CA (PEM) that clients must be signed by.")
    database_pool_size: int = setting(10, "Connections to PostgreSQL a process.", minimum=2)
    cpu_threads: int = setting(0, "Threads for decoding and matching. 0: one a core.", minimum=0)
    max_pending_matches: int = setting(
        64, "Clips that may wait or run at once; more get RESOURCE_EXHAUSTED.", minimum=1
    )
    max_uploads: int = setting(
        64, "Uploads at once; further ones wait, then get RESOURCE_EXHAUSTED.", minimum=1
    )
    upload_wait_s: float = setting(30.0, "How long an upload waits for its turn.", minimum=0)
    max_upload_bytes: int = setting(8 << 30, "Largest upload or download.", minimum=1)
    max_media_s: float = setting(24 * 3600.0, "Longest recording that is ingested.", minimum=1)
    max_clip_s: float = setting(600.0, "Longest clip of MatchClip.", minimum=1)
    explain_days: float = setting(
        3.0,
        "How long features of matched clips are kept (no audio, about 40 kB a clip of 10 s), so "
        "that ExplainMatch needs no clip. 0: not at all.",
        minimum=0,
    )
    max_url_matches: int = setting(
        4, "MatchUrl calls at once; more get RESOURCE_EXHAUSTED.", minimum=1
    )
    clip_fetch_bytes: int = setting(
        512 << 20, "Most bytes that MatchUrl fetches for one clip.", minimum=1
    )
    clip_fetch_s: float = setting(120.0, "How long MatchUrl may take to fetch a clip.", minimum=0.1)
    min_free_disk_bytes: int = setting(
        256 << 20, "Uploads and downloads stop with DISK_FULL below this.", minimum=0
    )
    max_streams: int = setting(
        64,
        "MatchStream calls at once; fewer when one more would make answers late.",
        minimum=1,
    )
    stream_resume_s: float = setting(
        60.0, "How long a stream whose connection broke waits for its client.", minimum=0
    )
    stream_idle_s: float = setting(
        30.0, "A stream or upload that sends nothing for this long is ended.", minimum=0.1
    )
    drain_s: float = setting(10.0, "How long calls may finish after SIGTERM.", minimum=0)
    index_poll_s: float = setting(
        1.0, "How often a server looks for changes of the catalogue, at the least.", minimum=0.05
    )
    index_seal_hours: float = setting(
        4.0, "The live tail becomes a volume on disk at this many hours.", minimum=0.01
    )
    postings_urls: str = setting(
        "",
        "PostgreSQL 15+ URLs, separated by spaces, of servers that hold the postings of large "
        "volumes of the index, a range of hashes each. Empty: this server's memory does.",
    )
    postings_least_hours: float = setting(
        100.0, "Volumes of at least so many hours have their postings there.", minimum=0
    )
    postings_deadline_s: float = setting(
        3.0, "How long a search waits for them; what has not answered is named.", minimum=0.01
    )
    postings_connections: int = setting(
        4, "Connections to each of them; a large question uses several.", minimum=1
    )
    segment_s: int = setting(
        90,
        "A stored row of a fingerprint covers this much audio (10 to 600). What is stored stays.",
        minimum=10,
        maximum=600,
    )
    worker_concurrency: int = setting(
        0, "Jobs a worker carries out at once. 0: two a core.", minimum=0
    )
    job_max_attempts: int = setting(5, "Attempts before a transient failure is final.", minimum=1)
    job_lease_s: float = setting(
        15.0, "A job whose worker is silent for this long is given to another.", minimum=1
    )
    retry_base_s: float = setting(2.0, "First retry delay; doubles each time.", minimum=0.01)
    retry_cap_s: float = setting(600.0, "Longest retry delay.", minimum=0.01)
    sweep_s: float = setting(
        2.0, "How often a worker looks by itself for jobs and leftovers.", minimum=0.05
    )
    cookies_dir: str = setting(
        "", "Folder of cookies files (Netscape format) that jobs may name. Empty: data_dir/cookies."
    )
    cookies: str = setting("", "Name of the cookies file that downloads use. Empty: none.")
    cookies_from_browser: str = setting(
        "", "Browser of the worker's machine to take cookies from: name or name:profile."
    )
    proxies: str = setting(
        "",
        "Proxies of downloads (http, https or socks5 URLs, separated by spaces); they take turns, "
        "and one that fails is left out for a while. Empty: none.",
    )
    proxy_bench_s: float = setting(300.0, "How long a failed proxy is left out.", minimum=1)
    player_client: str = setting("", "YouTube player client of yt-dlp. Empty: its own choice.")
    user_agent: str = setting("", "User agent of downloads. Empty: the library's own.")
    ytdlp_cache_dir: str = setting("", "Folder for yt-dlp's cache. Empty: it keeps none.")
    download_bytes_per_s: int = setting(
        0, "Most bytes a second of one download. 0: no bound.", minimum=0
    )
    max_downloads: int = setting(4, "Downloads at once of a worker.", minimum=1)
    max_host_jobs: int = setting(2, "Jobs at once that fetch from one host.", minimum=1)
    max_channel_jobs: int = setting(4, "Jobs at once of one channel.", minimum=1)
    max_channels: int = setting(2, "Channels and folders listed at once by a worker.", minimum=1)
    max_monitors: int = setting(
        50, "Live sources that a worker listens to at once; 0: it leaves them to others.", minimum=0
    )
    monitor_lease_s: float = setting(
        15.0, "A worker that is silent for this long loses its monitors to others.", minimum=1
    )
    host_refusals: int = setting(
        5, "Refusals in a row after which a host is paused as a whole.", minimum=1
    )
    host_pause_s: float = setting(
        300.0, "How long at first; doubles with every further refusal.", minimum=0.1
    )
    host_pause_cap_s: float = setting(6 * 3600.0, "How long at most.", minimum=0.1)
    youtube_api_key: str = setting("", "Key of the YouTube Data API v3. Empty: OAuth, or yt-dlp.")
    youtube_token: str = setting(
        "", "File of the OAuth token that `soundhash auth youtube` writes. Empty: in data_dir."
    )
    youtube_api_url: str = setting("", "Another address of the YouTube Data API, for tests.")
    youtube_daily_units: int = setting(
        10_000, "Quota of the YouTube Data API a day, units.", minimum=0
    )
    folders: str = setting(
        "", "Folders of the worker's machine that may be scanned, separated by colons. Empty: none."
    )
    partial_upload_s: float = setting(
        24 * 3600.0, "How long the bytes of a cut upload are kept.", minimum=1
    )
    storage_url: str = setting(
        "",
        "Where audio is kept: s3://bucket/prefix, gs://, az://, file:///folder. Empty: nowhere. "
        "Credentials and endpoints come from the usual variables of each service (AWS_*, ...).",
    )
    keep: str = setting(
        "audio", "What is kept, of: media (as fetched), audio (16 kHz mono WAV), thumbnail."
    )
    keep_days: float = setting(0.0, "Days until what is kept is deleted. 0: never.", minimum=0)
    keep_chunk_s: float = setting(
        600.0, "Longer kept audio is stored in chunks of this length, too.", minimum=10
    )
    keep_loudness: bool = setting(
        False, "Normalise kept audio to -23 LUFS, -2 dBTP, LRA 7 (EBU R128, two passes)."
    )
    allow_private_urls: bool = setting(
        False, "Allow fetching from loopback, private and link-local addresses."
    )
    log_format: str = setting("console", "Log output: console or json.")
    log_level: str = setting("info", "Log level: debug, info, warning or error.")

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **overrides: object) -> Settings:
        """Reads the environment; ``overrides`` that are not None win over it.

        Raises SettingsError for a value of the wrong form or out of range.
        """
        source = os.environ if env is None else env
        values: dict[str, typing.Any] = {}
        hints = typing.get_type_hints(cls)
        for spec in dataclasses.fields(cls):
            given = overrides.get(spec.name)
            if given is not None:
                values[spec.name] = given
                continue
            variable = PREFIX + spec.name.upper()
            if variable in source and source[variable] != "":
                values[spec.name] = _parse(variable, source[variable], hints[spec.name])
        for spec in dataclasses.fields(cls):
            minimum = spec.metadata["minimum"]
            value = values.get(spec.name)
            if minimum is not None and value is not None and value < minimum:
                raise SettingsError(
                    f"{PREFIX}{spec.name.upper()} is {value}; it must be at least {minimum}."
                )
            maximum = spec.metadata["maximum"]
            if maximum is not None and value is not None and value > maximum:
                raise SettingsError(
                    f"{PREFIX}{spec.name.upper()} is {value}; it must be at most {maximum}."
                )
        return cls(**values)

    def as_env(self) -> dict[str, str]:
        """The environment from which `from_env` makes these settings again."""
        return {
            PREFIX + spec.name.upper(): _format(getattr(self, spec.name))
            for spec in dataclasses.fields(self)
        }

    @property
    def effective_cpu_threads(self) -> int:
        return self.cpu_threads or os.cpu_count() or 1

    @property
    def effective_worker_concurrency(self) -> int:
        return self.worker_concurrency or 2 * (os.cpu_count() or 1)

    @property
    def uploads_dir(self) -> Path:
        """Received media, named by their SHA-256, until their job is done."""
        return self.data_dir / "uploads"

    @property
    def index_dir(self) -> Path:
        """Volumes of the match index; may be deleted while no server runs."""
        return self.data_dir / "index"

    @property
    def air_index_dir(self) -> Path:
        """Volumes of the index of what monitors have heard; may be deleted likewise."""
        return self.data_dir / "air-index"

    @property
    def partial_uploads_dir(self) -> Path:
        """The beginnings of uploads that were cut."""
        return self.uploads_dir / "partial"

    @property
    def effective_cookies_dir(self) -> Path:
        return Path(self.cookies_dir) if self.cookies_dir else self.data_dir / "cookies"

    @property
    def youtube_token_path(self) -> Path:
        return Path(self.youtube_token) if self.youtube_token else self.data_dir / "youtube.json"

    @property
    def folder_roots(self) -> tuple[Path, ...]:
        """Folders that may be scanned."""
        return tuple(Path(part) for part in self.folders.split(":") if part)

    @property
    def scratch_dir(self) -> Path:
        """Downloads in progress; always emptied."""
        return self.data_dir / "scratch"


_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _format(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _parse(variable: str, text: str, kind: type) -> object:
    try:
        if kind is bool:
            lowered = text.lower()
            if lowered in _TRUE:
                return True
            if lowered in _FALSE:
                return False
            raise ValueError
        if kind is Path:
            return Path(text).expanduser()
        if kind is float:
            number = float(text)
            if math.isnan(number):
                raise ValueError
            return number
        return kind(text)
    except ValueError:
        name = {bool: "1 or 0", int: "a whole number", float: "a number"}.get(kind, kind.__name__)
        raise SettingsError(f"{variable} is {text!r}; it must be {name}.") from None

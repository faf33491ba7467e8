"""Listening to live sources in tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundhash_server.fetching.fetcher import Fetcher
from soundhash_server.fetching.http import open_session
from soundhash_server.fetching.live import Audio, LiveSources, Title
from soundhash_server.model import FetchOptions
from soundhash_server.settings import Settings
from soundhash_workers import forks


class NoBenches:
    """Remembers no proxy that has failed: for tests without a queue server."""

    async def waits_s(self, digests: list[str]) -> dict[str, float]:
        return {}

    async def bench(self, digest: str, seconds: float) -> None: ...
    async def clear(self, digest: str) -> None: ...


@dataclass
class Heard:
    """What a source has given: audio, and titles with the second at which each came."""

    pcm: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    titles: list[tuple[float, str]] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        return self.pcm.size / 8000

    def lag_of(self, expected: NDArray[np.float32]) -> tuple[int, float]:
        """Where in the expected audio this begins, samples, and how alike they are, 0 to 1."""
        n = 1 << (max(self.pcm.size, 1) + expected.size - 1).bit_length()
        found = np.fft.irfft(np.fft.rfft(expected, n) * np.conj(np.fft.rfft(self.pcm, n)), n)
        lag = int(np.argmax(found))
        lag = lag - n if lag > n // 2 else lag
        start, shift = max(lag, 0), max(-lag, 0)
        size = min(expected.size - start, self.pcm.size - shift)
        a, b = expected[start : start + size], self.pcm[shift : shift + size]
        return lag, float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))

    def sounds_like(self, expected: NDArray[np.float32], missing_s: float = 0.3) -> bool:
        """Whether this is the expected audio, of which a little may be missing or more."""
        _, alike = self.lag_of(expected)
        return alike > 0.9 and abs(self.pcm.size - expected.size) < missing_s * 8000


@contextlib.asynccontextmanager
async def make_sources(
    *, stall_s: float = 30.0, mute_s: float = 60.0, **settings: object
) -> AsyncIterator[LiveSources]:
    """Sources that may be on loopback unless the settings say otherwise."""
    forks.prepare()
    made = Settings(**{"allow_private_urls": True, "data_dir": Path("/nowhere"), **settings})
    session = open_session(allow_private=made.allow_private_urls, read_timeout_s=stall_s)
    async with session:
        fetcher = Fetcher(made, session, NoBenches())
        yield LiveSources(made, session, fetcher, stall_s=stall_s, mute_s=mute_s)


async def hear(
    sources: LiveSources,
    url: str,
    options: FetchOptions | None = None,
    *,
    most_s: float = float("inf"),
    into: Heard | None = None,
) -> Heard:
    """What a source plays, to its end or for so long; ``into`` keeps it when the source fails."""
    heard = into or Heard()
    pieces = [heard.pcm]
    try:
        async with sources.open(url, options or FetchOptions()) as events:
            async for event in events:
                match event:
                    case Audio(pcm):
                        assert 0 < pcm.size <= 4000
                        assert pcm.dtype == np.float32
                        pieces.append(pcm)
                    case Title(text):
                        heard.titles.append((sum(map(len, pieces)) / 8000, text))
                if sum(map(len, pieces)) >= most_s * 8000:
                    break
    finally:
        heard.pcm = np.concatenate(pieces)
    return heard

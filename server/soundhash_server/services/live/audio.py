"""Bytes that arrive to mono 8 kHz audio, without waiting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from soundhash_engine import PcmFormat, PcmResampler, StreamDecoder
from soundhash_engine.types import Pcm

SILENCE_DB = -120.0


class AudioSource(Protocol):
    """Bytes in, mono 8 kHz out, without waiting."""

    def feed(self, data: bytes) -> bool:
        """Takes all of the bytes or none; False when there is no room yet."""

    def end(self) -> None:
        """No more bytes will come."""

    def read(self) -> Pcm | None:
        """The next audio that is ready."""

    @property
    def ended(self) -> bool:
        """Everything has been read."""

    def close(self) -> None:
        """Frees what it holds; may block for a moment."""


class ContainerSource:
    """Media in a container, decoded by a thread of the engine."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self._decoder = StreamDecoder(moved=moved)
        self.feed = self._decoder.try_feed
        self.end = self._decoder.end_of_input
        self.close = self._decoder.close

    def read(self) -> Pcm | None:
        return self._decoder.read(timeout_s=0)

    @property
    def ended(self) -> bool:
        return self._decoder.ended


class RawSource:
    """Raw interleaved samples."""

    def __init__(self, pcm_format: PcmFormat) -> None:
        self._resampler = PcmResampler(pcm_format)
        self._waiting: Pcm | None = None
        self._over = False

    def feed(self, data: bytes) -> bool:
        if self._waiting is not None:
            return False
        self._waiting = self._resampler.push(data)
        return True

    def end(self) -> None:
        rest = self._resampler.finish()
        self._waiting = rest if self._waiting is None else np.concatenate((self._waiting, rest))
        self._over = True

    def read(self) -> Pcm | None:
        pcm, self._waiting = self._waiting, None
        return pcm

    @property
    def ended(self) -> bool:
        return self._over and self._waiting is None

    def close(self) -> None:
        self._waiting = None


def open_source(pcm_format: PcmFormat | None, moved: Callable[[], None]) -> AudioSource:
    """A source for raw samples, or for media in a container.

    moved: called from any thread when there is more to read, room, or an end, though nobody feeds.
    """
    return ContainerSource(moved) if pcm_format is None else RawSource(pcm_format)


def level_db(pcm: Pcm) -> float:
    """Power of the audio, dB of full scale, -120 to 0."""
    power = float(np.mean(np.square(pcm, dtype=np.float64))) if pcm.size else 0.0
    return min(0.0, max(SILENCE_DB, 10.0 * math.log10(max(power, 1e-12))))


def peak_db(pcm: Pcm) -> float:
    """The highest sample, dB of full scale, -120 to 0."""
    peak = float(np.max(np.abs(pcm))) if pcm.size else 0.0
    return min(0.0, max(SILENCE_DB, 20.0 * math.log10(max(peak, 1e-6))))

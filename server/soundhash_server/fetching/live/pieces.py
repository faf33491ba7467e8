"""What a live source is made of on its way: bytes and titles before decoding, audio after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from soundhash_engine.types import Pcm


@dataclass(frozen=True, slots=True)
class Audio:
    """A piece of what a source plays.

    pcm: mono float32 at 8 kHz within about ±1, more than 0 and at most 0.5 s, as it arrives.
    """

    pcm: Pcm


@dataclass(frozen=True, slots=True)
class Title:
    """What the source says that is playing. On one line, but nobody has checked what it says."""

    text: str


LiveEvent = Audio | Title


@dataclass(frozen=True, slots=True)
class NewPart:
    """What follows has nothing to do with the bytes before: another encoder, another format."""


Piece = bytes | Title | NewPart
Pieces = AsyncGenerator[Piece, None]
"""What a transport gives: it ends when the source ends, and raises JobError, or PlatformError
(URL_NOT_ALLOWED), when the source fails. Close it (``aclosing``)."""

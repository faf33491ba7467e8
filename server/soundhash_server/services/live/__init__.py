"""Matching audio while it arrives.

events    what a stream is told
audio     bytes to mono 8 kHz audio
stream    one stream: half a second after the other through the engine's matcher
matching  `LiveMatching`: all streams of a process
"""

from soundhash_server.services.live.events import (
    FinalMatch,
    Gap,
    Heard,
    Opened,
    ProvisionalMatch,
    StreamConfig,
    StreamEvent,
    StreamWarning,
    Summary,
    Told,
)
from soundhash_server.services.live.matching import LiveMatching

__all__ = [
    "FinalMatch",
    "Gap",
    "Heard",
    "LiveMatching",
    "Opened",
    "ProvisionalMatch",
    "StreamConfig",
    "StreamEvent",
    "StreamWarning",
    "Summary",
    "Told",
]

"""Live sources as audio: radio stations, HLS, RTMP, RTSP, and pages that lead to them."""

from soundhash_server.fetching.live.pieces import Audio, LiveEvent, Title
from soundhash_server.fetching.live.sources import LiveSources

__all__ = ["Audio", "LiveEvent", "LiveSources", "Title"]

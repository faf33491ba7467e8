"""Live sources over HTTP: what is heard of them, and why they fail."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soundhash_server.errors import PlatformError
from soundhash_server.fetching.failures import JobError
from soundhash_server.fetching.live import Audio, LiveSources, Title
from soundhash_server.model import FetchOptions
from tests.air import Air, Page, Station, serving_air
from tests.listening import hear, make_sources
from tests.media import encode
from tests.sounds import tune


@pytest.fixture
async def air() -> AsyncIterator[Air]:
    async with serving_air() as serving:
        yield serving


async def test_a_station_is_heard_to_its_end(air: Air) -> None:
    pcm = tune(8.0)
    air.station("/radio", Station(encode(pcm, "mp3")))
    async with make_sources() as sources:
        heard = await hear(sources, air.url("/radio"))
    assert heard.sounds_like(pcm)

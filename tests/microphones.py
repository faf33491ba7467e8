"""A `sounddevice` without hardware: the same calls, sound from an array.

tests/unit/test_cli_microphone.py compares its signatures with those of the real one.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PortAudioError(Exception):
    """What every failure of PortAudio is."""


class SoundCards:
    """The module `sounddevice`, with three devices of which two record.

    sound: mono float samples, -1 to 1, that the microphones give. unplugs: the stream stops at
    their end, else silence follows. period_s: between two blocks; 0: as fast as it goes. broken:
    opening fails. mono: whether the microphones take a single channel.
    """

    PortAudioError = PortAudioError

    def __init__(
        self,
        sound: NDArray[np.float32] | None = None,
        *,
        rate_hz: float = 16_000.0,
        unplugs: bool = False,
        period_s: float = 0.0,
        broken: bool = False,
        mono: bool = True,
        default: int = 0,
    ) -> None:
        self.sound = np.zeros(0, np.float32) if sound is None else sound
        self.rate_hz = rate_hz
        self.unplugs = unplugs
        self.period_s = period_s
        self.broken = broken
        self.mono = mono
        self.default = default
        self.streams: list[RawInputStream] = []

    def module(self) -> types.ModuleType:
        """To be put into sys.modules."""
        made = types.ModuleType("sounddevice")
        for name in ("query_devices", "query_hostapis", "check_input_settings", "PortAudioError"):
            setattr(made, name, getattr(self, name))
        cards = self

        class Stream(RawInputStream):
            cards_ = cards

        setattr(made, RawInputStream.__name__, Stream)
        return made

    def query_devices(self, device: Any = None, kind: Any = None) -> Any:
        names = [("Built-in [mic]", 2), ("Speakers", 0), ("USB mic", 1)]
        found = [
            {
                "name": name,
                "index": number,
                "hostapi": 0,
                "max_input_channels": channels,
                "max_output_channels": 2 - channels,
                "default_samplerate": self.rate_hz,
            }
            for number, (name, channels) in enumerate(names)
        ]
        if device is None and kind is None:
            return tuple(found)
        if device is None:
            if self.default < 0:
                raise PortAudioError("Error querying device -1")
            return found[self.default]
        if isinstance(device, int):
            if device >= len(found):
                raise PortAudioError(f"Error querying device {device}")
            matching = [found[device]]
        else:
            matching = [one for one in found if device.lower() in str(one["name"]).lower()]
            matching = [one for one in matching if one["max_input_channels"]]
        if not matching:
            raise ValueError(f"No input device matching {device!r}")
        if len(matching) > 1:
            raise ValueError(f"Multiple input devices found for {device!r}:\n[0] a\n[2] b")
        if not matching[0]["max_input_channels"]:
            raise ValueError(f"Not an input device: {matching[0]['name']!r}")
        return matching[0]

    def query_hostapis(self, index: Any = None) -> Any:
        return ({"name": "ALSA"},)

    def check_input_settings(
        self,
        device: Any = None,
        channels: Any = None,
        dtype: Any = None,
        extra_settings: Any = None,
        samplerate: Any = None,
    ) -> None:
        if channels == 1 and not self.mono:
            raise PortAudioError("Invalid number of channels [PaErrorCode -9998]")


class RawInputStream:
    """Calls back with blocks from a thread of its own, in a buffer that it uses again."""

    cards_: SoundCards

    def __init__(
        self,
        samplerate: Any = None,
        blocksize: Any = None,
        device: Any = None,
        channels: Any = None,
        dtype: Any = None,
        latency: Any = None,
        extra_settings: Any = None,
        callback: Callable[[Any, int, Any, Any], None] | None = None,
        finished_callback: Any = None,
        clip_off: Any = None,
        dither_off: Any = None,
        never_drop_input: Any = None,
        prime_output_buffers_using_stream_callback: Any = None,
    ) -> None:
        if self.cards_.broken:
            raise PortAudioError("Error opening RawInputStream: Device unavailable")
        assert dtype == "int16" and callback is not None
        self.cards_.streams.append(self)
        self.device, self.channels, self.samplerate = device, channels, samplerate
        self.active = False
        self.closed = False
        self._block = int(blocksize)
        self._callback = callback
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> RawInputStream:
        self.active = True
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(10)
        self.active = False
        self.closed = True

    def _play(self) -> None:
        cards = self.cards_
        samples = (cards.sound * 32767).astype("<i2")
        frames = np.repeat(samples[:, None], self.channels, axis=1)
        buffer = bytearray(self._block * self.channels * 2)
        at = 0
        while not self._ending.wait(cards.period_s):
            block = frames[at : at + self._block]
            at += self._block
            if len(block) < self._block:
                if cards.unplugs:
                    break
                block = np.pad(block, ((0, self._block - len(block)), (0, 0)))
            buffer[:] = block.tobytes()
            self._callback(memoryview(buffer), self._block, None, None)
            buffer[:] = bytes(len(buffer))
        self.active = False

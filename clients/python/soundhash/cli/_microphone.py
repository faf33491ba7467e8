"""`soundhash listen --mic`: a sound card, through sounddevice (PortAudio)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_CHUNKS_PER_S = 10
_MOST_WAITING_CHUNKS = 60 * _CHUNKS_PER_S
"""A minute: as long as a server that is being restarted may take."""
_POLL_S = 0.2
_RATES_HZ = (8000, 192_000)
_BYTES_PER_SAMPLE = 2


class MicrophoneError(OSError):
    """A microphone that cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Device:
    """A sound card that records.

    number: what --device takes. system: the part of the operating system that it belongs to.
    default: it is used when none is named.
    """

    number: int
    name: str
    system: str
    channels: int
    rate_hz: int
    default: bool


def devices() -> list[Device]:
    """All that record. Raises MicrophoneError."""
    sounddevice = _sounddevice()
    try:
        found, systems = sounddevice.query_devices(), sounddevice.query_hostapis()
        chosen = _default_number(sounddevice)
    except sounddevice.PortAudioError as error:
        raise MicrophoneError(f"the sound cards cannot be listed: {_words(error)}") from None
    return [
        Device(
            number=int(one["index"]),
            name=str(one["name"]),
            system=str(systems[one["hostapi"]]["name"]),
            channels=int(one["max_input_channels"]),
            rate_hz=round(one["default_samplerate"]),
            default=int(one["index"]) == chosen,
        )
        for one in found
        if one["max_input_channels"] > 0
    ]


class Microphone:
    """Sound from a sound card, as raw mono audio of the card's own rate.

    device: a number or a part of the name as `devices` lists them; empty: the default one. It is
    opened by `chunks`. Sound that nobody takes for a minute becomes silence, so that the times
    stay right. Raises MicrophoneError.
    """

    def __init__(self, device: str = "") -> None:
        from soundhash import PcmEncoding, PcmFormat  # noqa: PLC0415 - loads gRPC

        self._sounddevice = _sounddevice()
        number = int(device) if device.isdecimal() else device or None
        try:
            found = self._sounddevice.query_devices(number, "input")
        except (self._sounddevice.PortAudioError, ValueError) as error:
            raise MicrophoneError(_not_found(device, error)) from None
        low_hz, high_hz = _RATES_HZ
        rate_hz = min(max(round(found["default_samplerate"]), low_hz), high_hz)
        self.name = str(found["name"])
        self._device = int(found["index"])
        self.pcm = PcmFormat(PcmEncoding.S16LE, rate_hz, self._channels(found, rate_hz))
        self._frame_bytes = _BYTES_PER_SAMPLE * self.pcm.channels
        self._waiting: queue.SimpleQueue[bytes | int] = queue.SimpleQueue()
        self._lost_frames = 0
        self._failure: MicrophoneError | None = None
        self._stop = threading.Event()

    @property
    def done(self) -> None:
        """It has no end."""
        return None

    def chunks(self) -> Iterator[bytes]:
        """Sound as it comes, a tenth of a second at a time."""
        rate_hz = self.pcm.sample_rate_hz
        try:
            stream = self._sounddevice.RawInputStream(
                samplerate=rate_hz,
                blocksize=rate_hz // _CHUNKS_PER_S,
                device=self._device,
                channels=self.pcm.channels,
                dtype="int16",
                callback=self._take,
            )
            with stream:
                yield from self._taken(stream)
        except self._sounddevice.PortAudioError as error:
            raise MicrophoneError(
                f"the microphone {self.name!r} cannot be opened: {_words(error)}. Is another "
                "program using it? `soundhash listen --list-devices` lists what there is."
            ) from None

    def _taken(self, stream: Any) -> Iterator[bytes]:
        while not self._stop.is_set():
            try:
                chunk = self._waiting.get(timeout=_POLL_S)
            except queue.Empty:
                if stream.active or not self._waiting.empty():
                    continue
                # What was heard until now is still to be told.
                self._failure = MicrophoneError(
                    f"the microphone {self.name!r} gives no more sound: was it unplugged?"
                )
                return
            yield bytes(chunk * self._frame_bytes) if isinstance(chunk, int) else chunk

    def _take(self, sound: Any, n_frames: int, time: Any, status: Any) -> None:
        """Called by PortAudio, from a thread of its own, with a buffer that it takes back."""
        if self._waiting.qsize() >= _MOST_WAITING_CHUNKS:
            self._lost_frames += n_frames
            return
        if self._lost_frames:
            self._waiting.put(self._lost_frames)
            self._lost_frames = 0
        self._waiting.put(bytes(sound))

    def heard(self, heard_s: float) -> None:
        """A microphone keeps its own time."""

    def interrupted(self) -> None:
        """It is recorded on."""

    def stop(self) -> None:
        """Ends `chunks` soon."""
        self._stop.set()

    def check(self) -> None:
        """Raises MicrophoneError when the card has stopped by itself."""
        if self._failure is not None:
            raise self._failure

    def _channels(self, found: Any, rate_hz: int) -> int:
        """One channel where the card can do that, else as few as it can."""
        most = int(found["max_input_channels"])
        for channels in range(1, min(most, 8)):
            try:
                self._sounddevice.check_input_settings(
                    device=self._device, channels=channels, dtype="int16", samplerate=rate_hz
                )
            except self._sounddevice.PortAudioError:
                continue
            return channels
        return min(most, 8)


def _sounddevice() -> Any:
    try:
        import sounddevice  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise MicrophoneError(
            "the microphone needs the package sounddevice: pip install 'soundhash[mic]'"
        ) from None
    except OSError:
        raise MicrophoneError(
            "the microphone needs the library PortAudio: apt install libportaudio2 "
            "(Debian, Ubuntu), dnf install portaudio (Fedora)"
        ) from None
    except Exception as error:  # what it raises where there is no sound system at all
        raise MicrophoneError(f"the sound system cannot be used: {_words(error)}") from None
    return sounddevice


def _default_number(sounddevice: Any) -> int:
    try:
        return int(sounddevice.query_devices(None, "input")["index"])
    except (sounddevice.PortAudioError, ValueError):
        return -1


def _not_found(device: str, error: Exception) -> str:
    hint = "`soundhash listen --list-devices` lists what there is"
    if not device:
        return f"there is no microphone; {hint}"
    if isinstance(error, ValueError) and "Multiple" in str(error):
        return f"several devices match {device!r}; {hint}, name one by its number"
    return f"there is no microphone {device!r}; {hint}"


def _words(error: Exception) -> str:
    """The first line of what a library says, without its last full stop."""
    return str(error).split("\n", 1)[0].rstrip(". ") or type(error).__name__

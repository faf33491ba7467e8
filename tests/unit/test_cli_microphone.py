"""`soundhash listen --mic` on sound cards that are not there."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.microphones import RawInputStream, SoundCards
from typer.testing import CliRunner

from soundhash.cli import _microphone
from soundhash.cli._app import app
from soundhash.cli._microphone import Microphone, MicrophoneError, devices


def plug_in(patch: pytest.MonkeyPatch, cards: SoundCards) -> SoundCards:
    patch.setitem(sys.modules, "sounddevice", cards.module())
    return cards


def ramp(n_samples: int) -> np.ndarray:
    return (np.arange(n_samples) % 1000 / 1000).astype(np.float32)


def test_the_fake_has_the_real_signatures() -> None:
    """The real module cannot be imported without PortAudio, but it can be read."""
    spec = importlib.util.find_spec("sounddevice")
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    stream = next(
        node
        for node in classes["RawInputStream"].body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    pairs = [
        (getattr(SoundCards, name), functions[name])
        for name in ("query_devices", "query_hostapis", "check_input_settings")
    ]
    for ours, theirs in [*pairs, (RawInputStream.__init__, stream)]:
        names = [one.arg for one in theirs.args.args]
        assert [n for n in inspect.signature(ours).parameters if n != "self"] == [
            n for n in names if n != "self"
        ]
    assert ast.unparse(classes["PortAudioError"].bases[0]) == "Exception"
    # What the callback gets, as its documentation says.
    assert "callback(indata: buffer, frames: int," in (ast.get_docstring(stream) or "")


def test_sound_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = ramp(16_000)
    cards = plug_in(monkeypatch, SoundCards(sound, unplugs=True))
    microphone = Microphone()
    assert microphone.name == "Built-in [mic]" and microphone.done is None
    assert str(microphone.pcm.encoding) == "s16le"
    assert (microphone.pcm.sample_rate_hz, microphone.pcm.channels) == (16_000, 1)
    got = b"".join(microphone.chunks())
    assert got == (sound * 32767).astype("<i2").tobytes()
    assert cards.streams[0].closed
    with pytest.raises(MicrophoneError, match="unplugged"):
        microphone.check()


@pytest.mark.parametrize(("named", "number"), [("2", 2), ("usb", 2), ("built-in", 0), ("", 0)])
def test_devices_by_number_and_name(
    monkeypatch: pytest.MonkeyPatch, named: str, number: int
) -> None:
    cards = plug_in(monkeypatch, SoundCards(unplugs=True))
    assert list(Microphone(named).chunks()) == []
    assert cards.streams[0].device == number


def test_a_card_without_a_single_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, SoundCards(ramp(3200), unplugs=True, mono=False))
    microphone = Microphone("0")
    assert microphone.pcm.channels == 2
    assert len(b"".join(microphone.chunks())) == 3200 * 4


@pytest.mark.parametrize(("told_hz", "used_hz"), [(44_100.0, 44_100), (4_000.0, 8_000)])
def test_rates(monkeypatch: pytest.MonkeyPatch, told_hz: float, used_hz: int) -> None:
    plug_in(monkeypatch, SoundCards(rate_hz=told_hz))
    assert Microphone().pcm.sample_rate_hz == used_hz


def test_a_microphone_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = plug_in(monkeypatch, SoundCards(period_s=0.001))
    microphone = Microphone()
    threading.Timer(0.1, microphone.stop).start()
    assert len(b"".join(microphone.chunks())) > 0
    assert cards.streams[0].closed
    microphone.check()


def test_sound_that_nobody_takes_becomes_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and what comes later has its right time."""
    monkeypatch.setattr(_microphone, "_MOST_WAITING_CHUNKS", 5)
    sound = np.full(16_000, 0.5, np.float32)
    cards = plug_in(monkeypatch, SoundCards(sound))
    microphone = Microphone()
    chunks = microphone.chunks()
    got = [next(chunks)]
    taken = threading.Event()
    stream = cards.streams[0]
    while not microphone._lost_frames:
        taken.wait(0.01)
    got += [next(chunks) for _ in range(20)]
    chunks.close()  # type: ignore[attr-defined]
    assert stream.closed
    # In the place of what was lost there is silence of its length.
    assert all(any(one) for one in got[:5])
    silence = next(one for one in got if len(one) > 3200)
    assert not any(silence) and len(silence) % 3200 == 0


@pytest.mark.parametrize(
    ("cards", "device", "words"),
    [
        (SoundCards(default=-1), "", "there is no microphone;"),
        (SoundCards(), "5", "no microphone '5'"),
        (SoundCards(), "1", "no microphone '1'"),
        (SoundCards(), "nothing", "no microphone 'nothing'"),
        (SoundCards(), "mic", "several devices match 'mic'"),
    ],
)
def test_devices_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, cards: SoundCards, device: str, words: str
) -> None:
    plug_in(monkeypatch, cards)
    with pytest.raises(MicrophoneError, match=words) as caught:
        Microphone(device)
    assert "--list-devices" in str(caught.value) and "\n" not in str(caught.value)


def test_a_device_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, SoundCards(broken=True))
    with pytest.raises(MicrophoneError, match=r"'USB mic' cannot be opened: .*Device unavailable"):
        list(Microphone("usb").chunks())


class Unimportable:
    """Makes `import sounddevice` fail."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "sounddevice":
            raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'sounddevice'"), "soundhash[mic]"),
        (OSError("PortAudio library not found"), "apt install libportaudio2"),
        (RuntimeError("Error initializing PortAudio"), "sound system cannot be used"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Unimportable(error), *sys.meta_path])
    done = CliRunner().invoke(app, ["listen", "--list-devices"])
    assert isinstance(done.exception, MicrophoneError) and words in str(done.exception)


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, SoundCards(default=2))
    assert [(one.number, one.name, one.default) for one in devices()] == [
        (0, "Built-in [mic]", False),
        (2, "USB mic", True),
    ]
    told = CliRunner().invoke(app, ["listen", "--list-devices"]).stdout.splitlines()
    assert [line.split()[0] for line in told] == ["device", "0", "2"]
    assert "Built-in [mic]" in told[1] and told[2].endswith("16000 Hz  default")
    lines = CliRunner().invoke(app, ["listen", "--list-devices", "--json"]).stdout.splitlines()
    assert '"system": "ALSA"' in lines[0] and len(lines) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x.wav", "--mic"],
        ["x.wav", "--device", "1"],
        ["--mic", "--fast"],
        ["--mic", "--pcm", "s16le:8000:1"],
        ["https://example.org/radio"],
        ["x.wav", "--window", "2"],
        ["x.wav", "--window", "13"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["listen", *arguments])
    assert done.exit_code == 2 and "Usage: " in done.stderr

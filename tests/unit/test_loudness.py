"""Loudness normalisation, judged by another meter than the one that it is made with."""

from __future__ import annotations

from collections.abc import Iterator

import av.filter
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from tests.songs import song

from soundhash_engine.types import Pcm
from soundhash_workers.loudness import TARGET_LUFS, TRUE_PEAK_DBTP, measure, normalise

RATE_HZ = 16_000


def music(duration_s: float, seed: int, level: float) -> Pcm:
    """Made-up music at 16 kHz."""
    slow = song(duration_s, seed)
    return (level * np.repeat(slow, 2)).astype(np.float32)


def chunks(pcm: Pcm) -> Iterator[Pcm]:
    for at in range(0, pcm.size, 8192):
        yield pcm[at : at + 8192]


def ebur128(pcm: Pcm) -> tuple[float, float]:
    """Integrated loudness in LUFS and true peak in dBTP, by FFmpeg's ebur128."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE_HZ, format="flt", layout="mono")
    meter = graph.add("ebur128", "metadata=1:peak=true")
    sink = graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    integrated = peak = -np.inf
    frame = AudioFrame.from_ndarray(pcm[None, :], format="flt", layout="mono")
    frame.sample_rate = RATE_HZ
    source.push(frame)
    source.push(None)
    while True:
        try:
            out = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return integrated, peak
        integrated = float(out.metadata.get("lavfi.r128.I", integrated))
        found = float(out.metadata.get("lavfi.r128.true_peak", 0.0))
        peak = max(peak, 20 * np.log10(found) if found > 0 else -np.inf)


def normalised(pcm: Pcm) -> Pcm:
    found = measure(chunks(pcm), RATE_HZ)
    out = np.concatenate(list(normalise(chunks(pcm), RATE_HZ, found)))
    # As it is stored.
    return (np.clip(np.rint(out * 32768), -32768, 32767) / 32768).astype(np.float32)


@pytest.mark.parametrize("level", [0.02, 0.3, 1.0])
def test_music_comes_to_the_target(level: float) -> None:
    pcm = music(20.0, 3, level)
    out = normalised(pcm)
    assert out.size == pcm.size
    integrated, peak = ebur128(out)
    assert integrated == pytest.approx(TARGET_LUFS, abs=0.5)
    assert peak <= TRUE_PEAK_DBTP + 0.1


def test_a_wide_range_is_made_narrower_at_the_target() -> None:
    pcm = music(30.0, 4, 0.5)
    pcm[: pcm.size // 2] *= 0.05
    integrated, peak = ebur128(normalised(pcm))
    assert integrated == pytest.approx(TARGET_LUFS, abs=1.0)
    assert peak <= TRUE_PEAK_DBTP + 0.1


def test_one_gain_for_all_where_that_does() -> None:
    """The second pass does not pump where it need not."""
    pcm = music(20.0, 3, 0.3)
    pcm[::2000] += 0.001  # not periodic: its range must not be exactly nothing
    found = measure(chunks(pcm), RATE_HZ)
    assert found is not None and 0 < found.range_lu < 7
    out = np.concatenate(list(normalise(chunks(pcm), RATE_HZ, found)))
    loud = np.abs(pcm) > 0.01
    gains = out[loud] / pcm[loud]
    assert gains.std() / gains.mean() < 0.001


@pytest.mark.parametrize("pcm", [np.zeros(5 * RATE_HZ, np.float32), music(0.2, 5, 0.3)])
def test_what_cannot_be_measured_gets_one_pass(pcm: Pcm) -> None:
    assert measure(chunks(pcm), RATE_HZ) is None
    out = normalised(pcm)
    assert out.size == pcm.size
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 1.0


def test_nothing_stays_nothing() -> None:
    assert measure(iter(()), RATE_HZ) is None
    assert list(normalise(iter(()), RATE_HZ, None)) == []

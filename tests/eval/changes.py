"""What happens to audio on its way around the net, one small pure function each.

Every factory returns a `Step`: (audio, random, material) → audio, mono float32 at 44.1 kHz. A step
keeps the first sample where it is; those that change the speed change the length. Levels are
relative to the clip's own: a noise "at −5 dB" is 5 dB louder than the clip.
"""

import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from tests.eval.audio import RATE_HZ, Audio, coded, filtered

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Material:
    """Other recordings that a change may lay over a clip; neither is ever indexed."""

    voice: Audio
    music: Audio


Step = Callable[[Audio, np.random.Generator, Material], Audio]


def chain(*steps: Step) -> Step:
    """One step after another."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        for step in steps:
            audio = step(audio, random, material)
        return audio

    return run


def rms(audio: Audio | Array) -> float:
    """Root mean square, never zero."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)) + 1e-12))


def fitted(audio: Audio | Array, n: int) -> Array:
    """Repeated or cut to ``n`` samples."""
    return np.resize(audio, n).astype(np.float64)


def mixed(audio: Audio, other: Audio | Array, ratio_db: float) -> Audio:
    """With something else on top, ``ratio_db`` quieter than the audio."""
    gain = rms(audio) / rms(other) * 10.0 ** (-ratio_db / 20.0)
    return np.asarray(audio + gain * fitted(other, audio.size), np.float32)


def _pure(function: Callable[[Audio], Audio | Array]) -> Step:
    """A step that needs neither chance nor material."""
    return lambda audio, random, material: function(audio).astype(np.float32)


# Codecs and filters


def codec(name: str, kbit_s: float, rate_hz: int = RATE_HZ) -> Step:
    """Encoded and decoded, see `audio.coded`."""
    return _pure(
        functools.partial(coded, codec=name, bit_rate=round(1e3 * kbit_s), rate_hz=rate_hz)
    )


def band(low_hz: float | None, high_hz: float | None, order: int = 4) -> Step:
    """Butterworth low-pass, high-pass or band-pass."""
    edges = [hz for hz in (low_hz, high_hz) if hz is not None]
    kind = "bandpass" if len(edges) == 2 else "highpass" if high_hz is None else "lowpass"
    corner = edges if len(edges) == 2 else edges[0]
    sos = signal.butter(order, corner, kind, fs=RATE_HZ, output="sos")
    return _pure(lambda audio: signal.sosfilt(sos, audio))


def shaped(gain_db: Callable[[NDArray[Any]], NDArray[Any]]) -> Step:
    """A linear-phase equaliser; ``gain_db`` of frequencies in Hz."""

    def run(audio: Audio) -> Array:
        n = 1 << int(audio.size + RATE_HZ).bit_length()
        hz = np.fft.rfftfreq(n, 1.0 / RATE_HZ)
        spectrum = np.fft.rfft(audio, n) * 10.0 ** (gain_db(hz) / 20.0)
        out: Array = np.fft.irfft(spectrum, n)[: audio.size]
        return out

    return _pure(run)


def tilt(db_per_octave: float) -> Step:
    """Brighter or duller around 1 kHz, within ±18 dB."""
    return shaped(
        lambda hz: np.clip(db_per_octave * np.log2(np.maximum(hz, 20.0) / 1000.0), -18.0, 18.0)
    )


def bass(db: float, corner_hz: float = 150.0) -> Step:
    """A low shelf."""
    return shaped(lambda hz: db / (1.0 + (hz / corner_hz) ** 4))


def random_equaliser(db: float) -> Step:
    """Eight bands up or down by as much as ``db``."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        at = np.log2(np.geomspace(60.0, 12_000.0, 8))
        gains = random.uniform(-db, db, 8)
        step = shaped(lambda hz: np.interp(np.log2(np.maximum(hz, 20.0)), at, gains))
        return step(audio, random, material)

    return run


def clipped(times: float) -> Step:
    """Turned up so that peaks lie this many times above full scale, and cut there."""
    return _pure(
        lambda audio: np.clip(audio * (times / max(1e-4, float(np.abs(audio).max()))), -1.0, 1.0)
    )


def saturated(drive: float) -> Step:
    """Soft distortion, as of a small loudspeaker."""
    return _pure(lambda audio: np.tanh(drive * audio / max(1e-4, float(np.abs(audio).max()))))


def _envelope(audio: Audio | Array, attack_s: float, release_s: float) -> Array:
    """Level over time: up as fast as ``attack_s``, down as slowly as ``release_s``."""
    block = RATE_HZ // 500
    padded = np.pad(np.abs(audio), (0, -audio.size % block))
    peaks = padded.reshape(-1, block).max(axis=1)
    up, down = (1.0 - np.exp(-1.0 / (500.0 * s)) for s in (attack_s, release_s))
    level, out = 0.0, np.empty(len(peaks))
    for i, peak in enumerate(peaks):
        level += (up if peak > level else down) * (float(peak) - level)
        out[i] = level
    return np.interp(np.arange(audio.size) / block, np.arange(len(out)) + 0.5, out)


def compressed(threshold_db: float, ratio: float, attack_s: float, release_s: float) -> Step:
    """A compressor; the threshold is relative to the clip's peak."""

    def run(audio: Audio) -> Array:
        peak = max(1e-4, float(np.abs(audio).max()))
        over_db = 20.0 * np.log10(_envelope(audio, attack_s, release_s) / peak + 1e-6)
        over_db = np.maximum(over_db - threshold_db, 0.0)
        out: Array = audio * 10.0 ** (-over_db * (1.0 - 1.0 / ratio) / 20.0)
        return out

    return _pure(run)


def pumping(rate_hz: float, depth_db: float) -> Step:
    """The level falls on every beat and comes back, as side-chain compression does."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        phase = (np.arange(audio.size) / RATE_HZ * rate_hz + random.uniform()) % 1.0
        return (audio * 10.0 ** (-depth_db * np.exp(-4.0 * phase) / 20.0)).astype(np.float32)

    return run


def dropouts(share: float, longest_s: float) -> Step:
    """Holes of 40 ms up to ``longest_s`` that take ``share`` of the time."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        out, lost = audio.copy(), 0
        while lost < share * audio.size:
            n = int(random.uniform(0.04, longest_s) * RATE_HZ)
            at = int(random.integers(0, max(1, audio.size - n)))
            out[at : at + n] = 0.0
            lost += n
        return out

    return run


inverted: Step = _pure(np.negative)


def comb(delay_s: float, level: float) -> Step:
    """Added to itself a little later, as when two microphones or channels are folded down."""

    def run(audio: Audio) -> Array:
        n = round(delay_s * RATE_HZ)
        return audio + level * np.pad(audio, (n, 0))[: audio.size]

    return _pure(run)


# Speed, tempo and pitch


def played(factor: float) -> Step:
    """Faster and higher, or slower and lower, as a record at another speed."""
    ratio = Fraction(1.0 / factor).limit_denominator(400)
    return _pure(
        lambda audio: signal.resample_poly(
            audio.astype(np.float64), ratio.numerator, ratio.denominator
        )
    )


def hurried(factor: float) -> Step:
    """Another tempo at the same pitch (overlap-add: FFmpeg's atempo)."""
    return _pure(lambda audio: filtered(audio, ("atempo", f"{factor:.6f}")))


def vocoded(factor: float) -> Step:
    """Another tempo at the same pitch, with a phase vocoder."""

    def run(audio: Audio) -> Array:
        n, hop = 2048, 512
        window = signal.windows.hann(n, sym=False)
        # Half a window ahead, so that a frame's middle is where it is in time.
        padded = np.pad(audio.astype(np.float64), (n // 2, 2 * n))
        rows = np.lib.stride_tricks.sliding_window_view(padded, n)[::hop]
        frames = np.fft.rfft(rows * window)
        at = np.arange(0.0, len(frames) - 2, factor)
        first = at.astype(int)
        part = (at - first)[:, None]
        size = (1.0 - part) * np.abs(frames[first]) + part * np.abs(frames[first + 1])
        turn = np.angle(frames[first + 1]) - np.angle(frames[first])
        phase = np.cumsum(np.concatenate([np.angle(frames[:1]), turn[:-1]]), axis=0)
        out = np.zeros(len(at) * hop + n)
        norm = np.full(out.size, 1e-9)
        for i, row in enumerate(np.fft.irfft(size * np.exp(1j * phase), n)):
            out[i * hop : i * hop + n] += window * row
            norm[i * hop : i * hop + n] += window * window
        kept: Array = (out / norm)[n // 2 : n // 2 + int(audio.size / factor)]
        return kept

    return _pure(run)


def transposed(semitones: float) -> Step:
    """Another pitch at the same tempo."""
    factor = 2.0 ** (semitones / 12.0)
    return chain(played(factor), hurried(1.0 / factor))


def warped(*waves: tuple[float, float]) -> Step:
    """Uneven speed: each wave a rate in Hz and a depth as a share of the speed; starts on time."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        t = np.arange(audio.size) / RATE_HZ
        at = t.copy()
        for rate_hz, depth in waves:
            phase = random.uniform(0.0, 2.0 * np.pi)
            turn = 2.0 * np.pi * rate_hz
            at += depth / turn * (np.sin(turn * t + phase) - np.sin(phase))
        out = ndimage.map_coordinates(audio, [at * RATE_HZ], order=3, mode="nearest")
        return np.asarray(out, np.float32)

    return run


def drifting(share: float) -> Step:
    """The speed goes from 1 − share to 1 + share, or the other way."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        t = np.arange(audio.size) / RATE_HZ
        sign = 1.0 if random.uniform() < 0.5 else -1.0
        at = t + sign * share * (t * t / t[-1] - t)
        out = ndimage.map_coordinates(audio, [at * RATE_HZ], order=3, mode="nearest")
        return np.asarray(out, np.float32)

    return run


# Rooms


def room(decay_s: float, direct_db: float, echoes: int = 6) -> Step:
    """A room that decays by 60 dB in ``decay_s``, high notes twice as fast.

    ``direct_db``: level of the direct sound against all of the reverberation.
    """

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        n = int(1.2 * decay_s * RATE_HZ)
        t = np.arange(n) / RATE_HZ
        noise = random.standard_normal(n)
        low = signal.sosfilt(signal.butter(2, 1500, "lowpass", fs=RATE_HZ, output="sos"), noise)
        tail = low * np.exp(-6.9 * t / decay_s) + (noise - low) * np.exp(-13.8 * t / decay_s)
        for _ in range(echoes):
            tail[int(random.uniform(0.002, 0.06) * RATE_HZ)] += random.normal(0.0, 4.0)
        tail /= np.sqrt((tail**2).sum())
        tail[0] += 10.0 ** (direct_db / 20.0)
        return np.asarray(signal.oaconvolve(audio, tail)[: audio.size], np.float32)

    return run


# Things on top


def voice(ratio_db: float) -> Step:
    """Someone talks over it."""
    return lambda audio, random, material: mixed(audio, material.voice, ratio_db)


def other_music(ratio_db: float) -> Step:
    """Other music plays as well."""
    return lambda audio, random, material: mixed(audio, material.music, ratio_db)


def ducked(ratio_db: float, duck_db: float) -> Step:
    """Someone reacts to it: louder by −``ratio_db``, and the music falls while they speak."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        speech = fitted(material.voice, audio.size)
        speaking = np.clip(3.0 * _envelope(speech, 0.02, 0.3) / (4.0 * rms(speech)), 0.0, 1.0)
        return mixed(
            (audio * 10.0 ** (-duck_db * speaking / 20.0)).astype(np.float32), speech, ratio_db
        )

    return run


def noise(slope: float, ratio_db: float) -> Step:
    """Steady noise with power ∝ 1/f^slope: 0 white, 1 pink, 2 brown."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        hz = np.fft.rfftfreq(audio.size, 1.0 / RATE_HZ)
        phases = random.standard_normal((2, hz.size))
        spectrum = (phases[0] + 1j * phases[1]) / np.maximum(hz, 20.0) ** (0.5 * slope)
        return mixed(audio, np.fft.irfft(spectrum, audio.size), ratio_db)

    return run


def crowd(ratio_db: float, voices: int = 24) -> Step:
    """Many people at once: one voice laid over itself, each time shifted and a little off."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        babble = np.zeros(audio.size)
        speech = fitted(material.voice, 2 * audio.size)
        for _ in range(voices):
            at = np.arange(audio.size) * random.uniform(0.8, 1.2) + random.integers(audio.size)
            babble += random.uniform(0.4, 1.0) * speech[at.astype(int) % speech.size]
        return mixed(audio, babble, ratio_db)

    return run


def applause(ratio_db: float, claps_s: float = 160.0) -> Step:
    """Clapping: short bursts of noise at random times."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        count = random.poisson(claps_s * audio.size / RATE_HZ)
        hits = np.zeros(audio.size)
        hits[random.integers(0, audio.size, count)] = random.lognormal(0.0, 0.8, count)
        n = int(0.02 * RATE_HZ)
        burst = random.standard_normal(n) * np.exp(-np.arange(n) / (0.004 * RATE_HZ))
        claps = signal.oaconvolve(hits, burst)[: audio.size]
        sos = signal.butter(2, [700, 5000], "bandpass", fs=RATE_HZ, output="sos")
        return mixed(audio, signal.sosfilt(sos, claps), ratio_db)

    return run


def ringtone(ratio_db: float) -> Step:
    """A telephone rings: eight notes with overtones, again and again."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        n = int(0.16 * RATE_HZ)
        t = np.arange(n) / RATE_HZ
        notes = 660.0 * 2.0 ** (random.integers(0, 15, 8) / 12.0)
        ring = [
            sum(np.sin(2.0 * np.pi * k * hz * t) / k**1.5 for k in (1, 2, 4)) * np.exp(-9.0 * t)
            for hz in notes
        ]
        pause = np.zeros(int(random.uniform(0.2, 0.8) * RATE_HZ))
        return mixed(audio, np.concatenate([*ring, pause]), ratio_db)

    return run


def crackle(ratio_db: float) -> Step:
    """A worn record: clicks, rumble and hum."""

    def run(audio: Audio, random: np.random.Generator, material: Material) -> Audio:
        n = audio.size
        clicks = np.zeros(n)
        count = random.poisson(12.0 * n / RATE_HZ)
        clicks[random.integers(0, n, count)] = random.standard_normal(count) * random.lognormal(
            0.0, 1.0, count
        )
        sos = signal.butter(1, [500, 8000], "bandpass", fs=RATE_HZ, output="sos")
        surface = signal.sosfilt(sos, clicks)
        rumble = np.cumsum(random.standard_normal(n))
        rumble = signal.sosfilt(
            signal.butter(2, [15, 60], "bandpass", fs=RATE_HZ, output="sos"), rumble
        )
        hum = np.sin(2.0 * np.pi * 50.0 * np.arange(n) / RATE_HZ)
        worn = surface / rms(surface) + 0.5 * rumble / rms(rumble) + 0.3 * hum
        return mixed(audio, worn, ratio_db)

    return run

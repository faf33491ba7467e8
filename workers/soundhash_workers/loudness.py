"""Loudness after EBU R 128: mono audio brought to -23 LUFS with FFmpeg's loudnorm.

Two passes: the first measures, the second applies what was measured, by one gain for all where
the peaks and the loudness range allow it (linear) and by a slow compressor where they do not.
What cannot be measured, since it is silent or too short for a gated measurement (BS.1770 wants
0.4 s), gets a single pass.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import av.filter
import av.logging
import numpy as np
from av.audio.frame import AudioFrame

from soundhash_engine.types import Pcm

TARGET_LUFS = -23.0
TRUE_PEAK_DBTP = -2.0
RANGE_LU = 7.0
"""Integrated loudness, highest true peak and loudness range (EBU R 128 and Tech 3342)."""

_TARGET = f"I={TARGET_LUFS:g}:TP={TRUE_PEAK_DBTP:g}:LRA={RANGE_LU:g}"


@dataclass(frozen=True, slots=True)
class Loudness:
    """What the first pass measures: LUFS, dBTP, LU, and the gate's threshold in LUFS."""

    integrated_lufs: float
    true_peak_dbtp: float
    range_lu: float
    threshold_lufs: float
    offset_lu: float


def measure(chunks: Iterable[Pcm], rate_hz: int) -> Loudness | None:
    """The loudness of mono audio; None when it has none that is finite.

    Sets FFmpeg's log level for the whole process and reads the log: loudnorm tells what it has
    measured nowhere else. Only for a process that does nothing beside it.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture(local=False) as lines:
            for _ in _filtered(chunks, rate_hz, f"{_TARGET}:print_format=json"):
                pass
            # It tells at its end.
            gc.collect()
    finally:
        av.logging.set_level(level)
    told = [text for _, name, text in lines if name.startswith("loudnorm") and "{" in text]
    if not told:
        return None
    values = json.loads(told[-1][told[-1].index("{") :])
    found = Loudness(
        float(values["input_i"]),
        float(values["input_tp"]),
        float(values["input_lra"]),
        float(values["input_thresh"]),
        float(values["target_offset"]),
    )
    finite = map(math.isfinite, (found.integrated_lufs, found.true_peak_dbtp, found.offset_lu))
    return found if all(finite) else None


def normalise(chunks: Iterable[Pcm], rate_hz: int, loudness: Loudness | None) -> Iterator[Pcm]:
    """Mono audio at the target's loudness, as long as what comes in.

    loudness: what `measure` has found in the same audio; None: a single pass.
    """
    arguments = _TARGET
    if loudness is not None:
        arguments += (
            f":linear=true:measured_I={loudness.integrated_lufs}"
            f":measured_TP={loudness.true_peak_dbtp}:measured_LRA={loudness.range_lu}"
            f":measured_thresh={loudness.threshold_lufs}:offset={loudness.offset_lu}"
        )
    yield from _filtered(chunks, rate_hz, arguments)


def _filtered(chunks: Iterable[Pcm], rate_hz: int, arguments: str) -> Iterator[Pcm]:
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate_hz, format="flt", layout="mono")
    loudnorm = graph.add("loudnorm", arguments)
    # Its compressor works at 192 kHz.
    as_before = graph.add("aformat", f"sample_rates={rate_hz}:channel_layouts=mono:sample_fmts=flt")
    sink = graph.add("abuffersink")
    for one, other in ((source, loudnorm), (loudnorm, as_before), (as_before, sink)):
        one.link_to(other)
    graph.configure()
    pushed = 0
    for pcm in chunks:
        frame = AudioFrame.from_ndarray(pcm[None, :], format="flt", layout="mono")
        frame.sample_rate = rate_hz
        frame.pts = pushed
        pushed += pcm.size
        source.push(frame)
        yield from _pulled(graph)
    if pushed:
        source.push(None)
        yield from _pulled(graph)


def _pulled(graph: av.filter.Graph) -> Iterator[Pcm]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        if isinstance(frame, AudioFrame):
            yield np.array(frame.to_ndarray()[0], np.float32)

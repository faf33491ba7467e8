"""Audio in chunks to stored segments, in bounded memory, the same whatever the chunks are."""

import copy

import numpy as np
from numpy.typing import NDArray

from soundhash_engine.codec import encode_segment
from soundhash_engine.descriptor import pool_contrast
from soundhash_engine.landmarks import (
    Peaks,
    contrast_rows,
    find_peaks,
    keep_strongest,
    to_landmarks,
)
from soundhash_engine.params import PARAMS, Params
from soundhash_engine.spectrum import log_bands
from soundhash_engine.types import Levels, Pcm, Segment

_BLOCK_FRAMES = 512
"""Contrast and peaks are worked out for this many frames at a time (8 s); a multiple of the
descriptor's row."""


class Extractor:
    """Makes the segments of one recording from audio that arrives in chunks.

    Push mono 8 kHz float32 audio; completed segments come back about 10 s after their last
    sample was pushed, the rest from `finish`. The segments do not depend on how the audio was
    cut into chunks: levels are integers, their sums exact, and a peak is given out only when
    everything that decides on it (mean 40, rank 31, box 4 frames ahead) has been seen. Memory:
    one segment's peaks and a few seconds of audio and levels, however long the recording.

    Not thread-safe. Push `extract(pcm)` instead when all of the audio is at hand.
    """

    def __init__(self, params: Params = PARAMS) -> None:
        self._params = params
        self._block_samples = _BLOCK_FRAMES * params.hop_samples
        self._overlap_samples = params.n_fft_samples - params.hop_samples
        # Audio from the first sample of the next frame on; the used part is [:_filled].
        self._pcm = np.empty(self._block_samples + self._overlap_samples, np.float32)
        self._filled = 0
        self._n_samples = 0
        # Level rows from frame _levels_start on; contrast is done up to frame _done.
        self._levels: Levels = np.empty((0, params.n_bands), np.int16)
        self._levels_start = 0
        self._done = 0
        # Peaks of all ranks that are still neighbours of undecided ones.
        self._peaks = _no_peaks()
        self._ranked = 0
        # What belongs to segments that are not complete yet.
        self._kept: list[Peaks] = []
        self._rows: list[NDArray[np.uint8]] = []
        self._rows_start = 0
        self._n_segments = 0
        self._landmarks_count = 0
        self._finished = False

    @property
    def duration_s(self) -> float:
        """Seconds of audio pushed so far."""
        return self._n_samples / self._params.sample_rate_hz

    @property
    def landmarks_count(self) -> int:
        """Landmarks in the segments given out so far."""
        return self._landmarks_count

    def push(self, pcm: Pcm) -> list[Segment]:
        """Take the next audio, of any length; returns the segments that it completes.

        Raises ValueError after `finish`.
        """
        if self._finished:
            raise ValueError("push after finish")
        segments: list[Segment] = []
        self._n_samples += pcm.size
        used = 0
        while used < pcm.size:
            count = min(pcm.size - used, self._pcm.size - self._filled)
            self._pcm[self._filled : self._filled + count] = pcm[used : used + count]
            self._filled += count
            used += count
            if self._filled == self._pcm.size:
                self._add_levels(log_bands(self._pcm, self._params))
                self._pcm[: self._overlap_samples] = self._pcm[self._block_samples :]
                self._filled = self._overlap_samples
                self._advance(last=False)
                segments += self._complete(last=False)
        return segments

    def so_far(self) -> list[Segment]:
        """What `finish` would give now, without an end: the last seconds may still change.

        Works through the last seconds only, some milliseconds. Raises ValueError after `finish`.
        """
        twin = copy.copy(self)
        # All else is replaced as it changes, not changed in place.
        twin._pcm = self._pcm.copy()
        twin._kept, twin._rows = list(self._kept), list(self._rows)
        return twin.finish()

    def finish(self) -> list[Segment]:
        """Say that the audio has ended; returns the remaining segments.

        Audio shorter than one frame (128 ms) has none at all.
        """
        if self._finished:
            raise ValueError("finish twice")
        self._finished = True
        self._add_levels(log_bands(self._pcm[: self._filled], self._params))
        self._advance(last=True)
        return self._complete(last=True)

    def _add_levels(self, levels: Levels) -> None:
        self._levels = np.concatenate((self._levels, levels))

    @property
    def _n_frames(self) -> int:
        return self._levels_start + len(self._levels)

    def _advance(self, *, last: bool) -> None:
        """Contrast, descriptor rows and peaks as far as the levels at hand decide them."""
        params = self._params
        row_frames = params.descriptor_frames
        end = self._n_frames
        if not last:
            end -= params.mean_half_frames
            end -= end % row_frames
        if end <= self._done and not last:
            return
        lo, hi = self._done - self._levels_start, end - self._levels_start
        contrast = contrast_rows(self._levels, lo, hi, params)
        self._rows.append(pool_contrast(contrast, params))
        found = find_peaks(self._levels, contrast, lo, params)
        found = Peaks(
            found.frame + np.int32(self._levels_start),
            found.time + np.int32(2 * self._levels_start),
            found.bin,
            found.strength,
        )
        self._peaks = _concatenate([self._peaks, found])
        self._done = end
        keep_from = max(0, end - params.mean_half_frames - self._levels_start)
        self._levels = self._levels[keep_from:].copy()
        self._levels_start += keep_from

        # A rank needs all peaks up to 31 frames later.
        limit = end if last else max(self._ranked, end - params.rank_half_frames)
        first, stop = np.searchsorted(self._peaks.frame, (self._ranked, limit))
        self._kept.append(
            keep_strongest(self._peaks, int(first), int(stop), params.rank_limit, params)
        )
        self._ranked = limit
        context = np.searchsorted(self._peaks.frame, limit - params.rank_half_frames)
        self._peaks = self._peaks.take(slice(int(context), None))

    def _complete(self, *, last: bool) -> list[Segment]:
        """Cut off the segments that nothing more can be added to."""
        params = self._params
        size = params.segment_frames
        segments: list[Segment] = []
        while True:
            start = self._n_segments * size
            # The time of a peak may be rounded to half a frame earlier.
            whole = self._ranked > start + size + 1
            if not whole and not (last and self._n_frames > start):
                return segments
            ends = last and self._n_frames <= start + size
            kept = _concatenate(self._kept)
            inside = kept.time < 2 * (start + size)
            if ends:
                inside[:] = True
            self._kept = [kept.take(~inside)]
            rows = np.concatenate(self._rows)
            next_row = -(-(start + size) // params.descriptor_frames)
            n_rows = rows.shape[0] if ends else min(rows.shape[0], next_row - self._rows_start)
            self._rows = [rows[n_rows:].copy()]
            self._rows_start += n_rows
            n_frames = self._n_frames - start if ends else size
            peaks = kept.take(inside)
            peaks = Peaks(
                peaks.frame - np.int32(start),
                peaks.time - np.int32(2 * start),
                peaks.bin,
                peaks.strength,
            )
            segment_samples = self._n_segments * size * params.hop_samples
            segments.append(
                encode_segment(
                    index=self._n_segments,
                    duration_s=(
                        (self._n_samples - segment_samples) / params.sample_rate_hz
                        if ends
                        else params.whole_segment_s
                    ),
                    landmarks=to_landmarks(peaks, n_frames, params),
                    descriptor=rows[:n_rows],
                    params=params,
                )
            )
            self._n_segments += 1
            self._landmarks_count += segments[-1].landmark_count
            if ends:
                return segments


def extract(pcm: Pcm, params: Params = PARAMS) -> list[Segment]:
    """The segments of a recording that is in memory at once; audio under 128 ms has none."""
    extractor = Extractor(params)
    return extractor.push(pcm) + extractor.finish()


def _no_peaks() -> Peaks:
    return Peaks(
        np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int16), np.empty(0, np.float32)
    )


def _concatenate(parts: list[Peaks]) -> Peaks:
    return Peaks(
        np.concatenate([part.frame for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.bin for part in parts]),
        np.concatenate([part.strength for part in parts]),
    )

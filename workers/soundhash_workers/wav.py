"""WAV headers: 44 bytes before plain PCM."""

from __future__ import annotations

import struct

from soundhash_workers.render import RATE_HZ, SAMPLE_BYTES

HEADER_BYTES = 44
MAX_PCM_BYTES = 2**32 - 1 - HEADER_BYTES
"""Sizes have 32 bits: 37 hours of 16 kHz mono 16 bit."""


def wav_header(pcm_bytes: int) -> bytes:
    """The header of so much mono 16 bit PCM at RATE_HZ. Raises ValueError above MAX_PCM_BYTES."""
    if pcm_bytes > MAX_PCM_BYTES:
        raise ValueError("too long for a WAV file")
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        HEADER_BYTES - 8 + pcm_bytes,
        b"WAVE",
        b"fmt ",
        16,
        1,  # PCM
        1,
        RATE_HZ,
        RATE_HZ * SAMPLE_BYTES,
        SAMPLE_BYTES,
        8 * SAMPLE_BYTES,
        b"data",
        pcm_bytes,
    )

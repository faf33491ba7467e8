"""The made-up catalogue is part of `soundhash bench`; see `soundhash_server.bench.filler`."""

from soundhash_server.bench.filler import (
    Likeness,
    Source,
    catalogue,
    likeness,
    make,
    prepare,
)

__all__ = ["Likeness", "Source", "catalogue", "likeness", "make", "prepare"]

"""Where the engine's compiled kernels are kept."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from soundhash_server.settings import Settings

VARIABLE = "NUMBA_CACHE_DIR"


def keep_compiled(settings: Settings) -> None:
    """Lets this process and those it starts keep compiled code below the data folder, where the
    installed package cannot be written and nothing else is set. Call it before the engine is
    imported: without any place to keep it, numba refuses to compile.
    """
    if os.environ.get(VARIABLE):
        return
    found = importlib.util.find_spec("soundhash_engine")
    if found is None or found.origin is None:
        return
    package = Path(found.origin).parent
    kept = package / "__pycache__"
    if not os.access(kept if kept.exists() else package, os.W_OK):
        os.environ[VARIABLE] = str(settings.data_dir.absolute() / "compiled")

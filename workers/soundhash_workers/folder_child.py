"""Tells media from other files, in a process of its own (see folder_files)."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from soundhash_engine import EngineError
from soundhash_engine.decode import probe
from soundhash_server.fetching.process import settle
from soundhash_workers.extract_child import MEMORY_BYTES


def run(answers: Connection, paths: Sequence[str]) -> None:
    """Sends ("", "") for each file with sound in it, else (reason, message)."""
    settle(MEMORY_BYTES)
    for path in paths:
        try:
            probe(Path(path))
            answers.send(("", ""))
        except EngineError as error:
            answers.send((error.reason, error.message))
        except FileNotFoundError:
            answers.send(("FILE_GONE", "It is gone."))
        except (OSError, MemoryError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            answers.send(("FILE_UNREADABLE", f"It cannot be read: {why}."))
        except Exception as error:
            answers.send(("DECODE_FAILED", f"{type(error).__name__} while looking into it."))

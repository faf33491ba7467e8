"""Children that do not outlive their parent, and that have bounded memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Makes the kernel kill this process when its parent dies, however that happens.

    parent_pid: the parent as it was at the start; if that one is gone already, exits at once.
    Does nothing outside Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)


def limit_memory(more_bytes: int) -> None:
    """Leaves this process with what it has and ``more_bytes`` of address space.

    Does nothing outside Linux.
    """
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415 - not everywhere

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit_bytes = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def settle(more_bytes: int) -> None:
    """What a child of the fork server does first: it ends with its parent, and has bounded memory.

    When the parent is gone, so is the process that this one was forked from, and so is this.
    """
    die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limit_memory(more_bytes)

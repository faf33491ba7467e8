"""Becomes another program, bound to the life of its parent: a script, run before that program.

    python -I -S launch.py '{"argv": [...], ...}'

Settings (JSON): argv; parent (its process id); death_signal (sent when the parent dies, kill -9
included; Linux); niceness (added to ours); uid, gid (null: keep); reach (keep the right to walk
through folders that the user may not enter). Nothing of this is done between fork and exec in
the parent, which may have threads; so this file imports nothing of ours and little else.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def capability_to_reach(permitted: int) -> int | None:
    """The least capability of this mask that lets a process enter any folder."""
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if permitted >> capability & 1:
            return capability
    return None


def _become(libc: ctypes.CDLL, uid: int, gid: int, reach: bool) -> None:
    libc.prctl(_PR_SET_KEEPCAPS, int(reach), 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if not reach:
        return
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    if libc.capget(ctypes.byref(header), data) != 0:
        return
    capability = capability_to_reach(data[0].permitted)
    if capability is None:
        return
    for field in ("effective", "permitted", "inheritable"):
        setattr(data[0], field, 1 << capability)
        setattr(data[1], field, 0)
    if libc.capset(ctypes.byref(header), data) == 0:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def main() -> None:
    settings = json.loads(sys.argv[1])
    linux = sys.platform == "linux"
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o077)
    os.nice(settings["niceness"])
    if settings["uid"] is not None:
        if linux:
            _become(libc, settings["uid"], settings["gid"], settings["reach"])
        else:
            os.setgroups([])
            os.setgid(settings["gid"])
            os.setuid(settings["uid"])
    if linux:
        # After the change of user, which clears it.
        libc.prctl(_PR_SET_PDEATHSIG, settings["death_signal"], 0, 0, 0)
    if os.getppid() != settings["parent"]:
        sys.exit(f"the parent process {settings['parent']} is gone")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    argv = settings["argv"]
    os.execv(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main()

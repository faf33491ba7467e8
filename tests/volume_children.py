"""Processes that write, read and die on one folder of volumes; each is a command of this module.

    python -m tests.volume_children killed FOLDER      a writer that dies at each of its steps
    python -m tests.volume_children write FOLDER N     a writer of N volumes, merged as they grow
    python -m tests.volume_children follow FOLDER IDS  a reader until it has so many recordings

They print what they have come to, a line each.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from soundhash_engine import Fingerprint, Index, Volume
from soundhash_engine.landmarks import rank_landmarks
from soundhash_engine.sealing import SEAL_RATIO, Merge
from soundhash_server.services.volume_files import VolumeFiles
from soundhash_server.store import volumes

CATALOGUE = UUID(int=7)
FRAMES = 2000


def made(seed: int) -> Fingerprint:
    """A fingerprint of nothing, with as much in it as half a minute of music has."""
    random = np.random.default_rng(seed)
    time_ = np.sort(random.integers(0, 2 * FRAMES, 600)).astype(np.int32)
    marks = rank_landmarks(
        time_,
        random.integers(12, 655, 600).astype(np.int16),
        random.integers(0, 64, 600).astype(np.uint8),
        FRAMES,
    )
    rows = random.integers(0, 256, (FRAMES // 4, 28)).astype(np.uint8)
    return Fingerprint(FRAMES / 62.5, FRAMES, marks, rows)


def sealed(
    index: Index, files: VolumeFiles, *, ratio: float = SEAL_RATIO, full: bool = False
) -> None:
    """What a server does when its tail is due."""

    def write(merge: Merge) -> Volume:
        return files.write(merge, CATALOGUE)

    index.seal(write, ratio=ratio, full=full)
    files.keep_only(index.volumes())


def ids(index: Index) -> list[int]:
    """Recordings that count; all of their landmarks and descriptors are what they were."""
    snapshot = index.snapshot()
    found = []
    for volume, alive in zip(snapshot.volumes, snapshot.alive, strict=True):
        for row in np.flatnonzero(alive).tolist():
            recording = int(volume.recording_id[row])
            again, expected = volume.fingerprint(row), made(recording)
            assert again.landmarks == expected.landmarks
            assert np.array_equal(again.descriptor, expected.descriptor)
            found.append(recording)
    return sorted(found)


def opened(folder: Path) -> tuple[Index, VolumeFiles]:
    """An index of what lies in the folder."""
    files = VolumeFiles(folder)
    index = Index()
    index.load(files.open(CATALOGUE))
    return index, files


def _dies_at(step: int) -> None:
    """Kill this process at its so manyeth call that changes something on disk."""
    left = [step]

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*arguments, **named)

        return called

    for owner, name in (
        (os, "fsync"),
        (os, "unlink"),
        (os, "rmdir"),
        (Path, "mkdir"),
        (Path, "rename"),
        (shutil, "rmtree"),
    ):
        setattr(owner, name, deadly(getattr(owner, name)))


def killed(folder: Path) -> None:
    """Three recordings lie in two volumes; a fourth is added and all is merged, again and again."""
    index, files = opened(folder)
    for first, last in ((0, 2), (2, 3)):
        index.apply([(i, 1, made(i)) for i in range(first, last)])
        sealed(index, files, ratio=0.0)
    files.close()
    step = 0
    while True:
        attempt = folder.with_name(f"{folder.name}-{step}")
        shutil.copytree(folder, attempt)
        child = os.fork()
        if child == 0:
            index, files = opened(attempt)
            assert files.writable
            _dies_at(step)
            index.apply([(3, 1, made(3))])
            sealed(index, files, full=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        index, files = opened(attempt)
        assert files.writable, "the dead writer's right has ended"
        now = ids(index)
        for path in attempt.glob("v*"):
            assert sum(volumes.verify(path)) > 0
        assert not list(attempt.glob(".unfinished-*"))
        # The next writer goes on as if nothing had happened.
        index.apply([(3, 1, made(3))])
        sealed(index, files, full=True)
        assert ids(index) == [0, 1, 2, 3]
        assert len(list(attempt.glob("v*"))) == len(index.volumes()) == 1
        files.close()
        shutil.rmtree(attempt)
        print(json.dumps({"step": step, "died": os.WIFSIGNALED(status), "ids": now}), flush=True)
        if not os.WIFSIGNALED(status):
            return
        step += 1


def write(folder: Path, count: int) -> None:
    """A recording a volume; they are merged as they grow, and what they were made of goes."""
    index, files = opened(folder)
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(count):
        index.apply([(i, 1, made(i))])
        sealed(index, files)
    sys.stdin.read()
    files.close()


def follow(folder: Path, count: int) -> None:
    """Maps what the writer writes, and looks into all of it, until it has seen enough."""
    index, files = opened(folder)
    assert not files.writable
    print("ready", flush=True)
    changes = 0
    before: set[int] = set()
    found: list[Volume] | None = list(index.volumes())
    while True:
        if found is None:
            time.sleep(0.001)
            found = files.follow(CATALOGUE)
            continue
        changes += 1
        # As when the catalogue says that these recordings have come.
        lost = index.adopt(found)
        wanted = {int(i): 1 for volume in found for i in volume.recording_id}
        there = index.revive(wanted)
        assert not lost, "what is merged is there before its parts go"
        assert there == wanted.keys() >= before
        before = set(there)
        assert ids(index) == sorted(wanted)
        assert all(files.holds(volume) for volume in index.snapshot().volumes)
        if len(wanted) == count:
            own = sum(not v.post.flags.owndata for v in index.snapshot().volumes)
            maps = Path("/proc/self/maps").read_text()
            mapped = [path.name for path in folder.glob("v*") if str(path) in maps]
            print(
                json.dumps({"changes": changes, "mapped": sorted(mapped), "volumes": own}),
                flush=True,
            )
            return
        found = None


if __name__ == "__main__":
    # It is processes that die here, not the system: what is written is there, and soon.
    os.fsync = lambda fd: None
    match sys.argv[1:]:
        case ["killed", path]:
            killed(Path(path))
        case ["write", path, number]:
            write(Path(path), int(number))
        case ["follow", path, number]:
            follow(Path(path), int(number))

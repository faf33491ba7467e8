"""Several processes on one folder of volumes: one writes, others map, anybody may die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def child(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.volume_children", *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def test_a_writer_may_be_killed_at_any_step(tmp_path: Path) -> None:
    steps = lines(child("killed", str(tmp_path / "volumes")))
    assert [one["died"] for one in steps] == [True] * (len(steps) - 1) + [False]
    assert len(steps) > 30, "the folder, each flush, each rename and each file that goes"
    # All that was there before, and what was added once its volume has appeared.
    held = [one["ids"] for one in steps]
    assert held[0] == [0, 1, 2]
    assert held[-1] == [0, 1, 2, 3]
    assert held == sorted(held, key=len)
    assert {len(one) for one in held} == {3, 4}


def test_other_processes_map_what_one_writes(tmp_path: Path) -> None:
    folder = tmp_path / "volumes"
    count = 25
    writer = child("write", str(folder), str(count))
    readers = []
    try:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(2):
            reader = child("follow", str(folder), str(count))
            readers.append(reader)
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        writer.stdin.write("go\n")
        writer.stdin.flush()
        ends = [lines(reader)[-1] for reader in readers]
        present = sorted(path.name for path in folder.glob("v*"))
        for end in ends:
            assert end["mapped"] == present
            assert end["volumes"] == len(present)
            assert end["changes"] > 1, "it has followed"
    finally:
        for process in readers:
            process.kill()
        _, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors

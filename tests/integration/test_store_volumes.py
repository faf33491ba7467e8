"""Volumes on disk: whole or not at all, and damage is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from soundhash_server.store import volumes
from soundhash_server.store.volumes import VolumeDamaged, try_writer_lock

META = {"params": "abc", "nested": {"n": [1, 2, 3]}}
ARRAYS: dict[str, NDArray[Any]] = {
    "keys": np.arange(1000, dtype=np.uint64),
    "rows": np.arange(24, dtype=np.uint8).reshape(4, 6),
    "empty": np.zeros((0, 3), np.int32),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
}


def test_what_is_saved_comes_back_mapped(tmp_path: Path) -> None:
    volumes.save(tmp_path / "v1", META, ARRAYS)
    meta, arrays = volumes.open(tmp_path / "v1")
    assert meta == META
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert isinstance(array, np.memmap)
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert not array.flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == ["v1"], "nothing else is left"


def test_mapped_arrays_outlive_their_files(tmp_path: Path) -> None:
    volumes.save(tmp_path / "v1", META, ARRAYS)
    _, arrays = volumes.open(tmp_path / "v1")
    for file in (tmp_path / "v1").iterdir():
        file.unlink()
    np.testing.assert_array_equal(arrays["keys"], ARRAYS["keys"])


def test_a_volume_never_changes(tmp_path: Path) -> None:
    volumes.save(tmp_path / "v1", META, ARRAYS)
    with pytest.raises(FileExistsError):
        volumes.save(tmp_path / "v1", {}, {})
    assert volumes.open(tmp_path / "v1")[0] == META
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


@pytest.mark.parametrize("name", ["../x", "A", "", "a.b"])
def test_names_that_are_no_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        volumes.save(tmp_path / "v1", {}, {name: np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object"):
        volumes.save(tmp_path / "v1", {}, {"a": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


def damage_cut(folder: Path) -> None:
    file = folder / "keys.npy"
    file.write_bytes(file.read_bytes()[:-1])


def damage_bit(folder: Path) -> None:
    data = bytearray((folder / "keys.npy").read_bytes())
    data[-5] ^= 1
    (folder / "keys.npy").write_bytes(data)


def damage_missing(folder: Path) -> None:
    (folder / "rows.npy").unlink()


def damage_no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1, "meta": {}')


def damage_manifest_kind(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def damage_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


def damage_escape(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../keys"] = manifest["files"]["keys"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage",
    [
        damage_cut,
        damage_bit,
        damage_missing,
        damage_no_manifest,
        damage_manifest,
        damage_manifest_kind,
        damage_format,
        damage_escape,
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: object) -> None:
    volumes.save(tmp_path / "v1", META, ARRAYS)
    assert callable(damage)
    damage(tmp_path / "v1")
    with pytest.raises(VolumeDamaged):
        volumes.open(tmp_path / "v1")


def test_folder_that_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(VolumeDamaged):
        volumes.open(tmp_path / "missing")
    with pytest.raises(VolumeDamaged):
        volumes.open(tmp_path)


def test_one_writer_and_what_a_dead_one_left(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path; import numpy as np\n"
        "from soundhash_server.store import volumes\n"
        "folder = Path(sys.argv[1]); lock = volumes.try_writer_lock(folder); assert lock\n"
        "(folder / '.unfinished-x').mkdir()\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert try_writer_lock(tmp_path) is None
    process.kill()
    process.communicate()
    lock = try_writer_lock(tmp_path)
    assert lock is not None
    assert not (tmp_path / ".unfinished-x").exists()
    assert lock.holder() is not None
    lock.release()
    assert lock.holder() is None

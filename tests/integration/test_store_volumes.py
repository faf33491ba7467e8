"""Volumes on disk: whole or not at all, and damage is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
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
    file = folder / "keys.bin"
    file.write_bytes(file.read_bytes()[:-1])


def damage_bit(folder: Path) -> None:
    data = bytearray((folder / "keys.bin").read_bytes())
    data[-5] ^= 1
    (folder / "keys.bin").write_bytes(data)


def damage_missing(folder: Path) -> None:
    (folder / "rows.bin").unlink()


def damage_no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"crc32": 1, "volume": {}')


def damage_manifest_kind(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As if written so: the manifest's own checksum fits."""
    content = json.loads((folder / "manifest.json").read_text())["volume"]
    change(content)
    manifest = {"crc32": volumes._content_crc32(content), "volume": content}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage_format(folder: Path) -> None:
    rewrite(folder, lambda content: content.update(format=99))


def damage_escape(folder: Path) -> None:
    rewrite(folder, lambda content: content["files"].update({"../keys": content["files"]["keys"]}))


def damage_meta(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("abc", "abd"))


def damage_shape(folder: Path) -> None:
    rewrite(folder, lambda content: content["files"]["rows"].update(shape=[6, 5]))


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
        damage_meta,
        damage_shape,
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: object) -> None:
    volumes.save(tmp_path / "v1", META, ARRAYS)
    assert callable(damage)
    damage(tmp_path / "v1")
    with pytest.raises(VolumeDamaged):
        volumes.open(tmp_path / "v1", checked=ARRAYS)
    with pytest.raises(VolumeDamaged):
        list(volumes.verify(tmp_path / "v1"))


def test_only_what_is_asked_for_is_read_at_once(tmp_path: Path) -> None:
    volumes.save(tmp_path / "v1", META, ARRAYS)
    assert sum(volumes.verify(tmp_path / "v1")) == sum(a.nbytes for a in ARRAYS.values())
    damage_bit(tmp_path / "v1")
    volumes.open(tmp_path / "v1", checked=["rows"])
    with pytest.raises(VolumeDamaged, match="keys"):
        volumes.open(tmp_path / "v1", checked=["keys"])
    with pytest.raises(VolumeDamaged, match="keys"):
        list(volumes.verify(tmp_path / "v1"))


def test_a_volume_is_written_part_by_part_and_appears_at_once(tmp_path: Path) -> None:
    with volumes.VolumeWriter(tmp_path / "v1", cold=["keys"]) as writer:
        for part in np.split(ARRAYS["keys"], [0, 300, 300, 999]):
            writer.append("keys", part)
        with pytest.raises(ValueError, match="fit"):
            writer.append("keys", np.zeros(3, np.int8))
        assert not (tmp_path / "v1").exists()
        writer.finish(META)
    _, arrays = volumes.open(tmp_path / "v1", checked=["keys"])
    np.testing.assert_array_equal(arrays["keys"], ARRAYS["keys"])
    with volumes.VolumeWriter(tmp_path / "v2") as writer:
        writer.append("keys", ARRAYS["keys"])
    assert [path.name for path in tmp_path.iterdir()] == ["v1"], "given up, nothing is left"


def test_a_removed_volume_is_gone_at_once_and_its_arrays_stay(tmp_path: Path) -> None:
    volumes.save(tmp_path / "v1", META, ARRAYS)
    _, arrays = volumes.open(tmp_path / "v1", scattered=["keys"])
    volumes.remove(tmp_path / "v1")
    volumes.remove(tmp_path / "v1")
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(arrays["keys"], ARRAYS["keys"])


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

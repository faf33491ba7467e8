"""Object storage: a folder, and S3 over real HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.buckets import s3_environment

from soundhash_server import storage as module
from soundhash_server.errors import PlatformError
from soundhash_server.settings import Settings, SettingsError
from soundhash_server.storage import Storage, open_storage

BIG = bytes(range(256)) * 4 * 8500  # some parts


@pytest.fixture(scope="module")
def s3() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with s3_environment(server) as endpoint:
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="kept")
        yield server
    server.stop()


@pytest.fixture(params=["s3", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Storage("s3://kept/some/prefix")
    return Storage(f"file://{tmp_path}/store")


async def read(storage: Storage, key: str) -> bytes:
    return b"".join([part async for part in storage.get(key)])


@pytest.mark.parametrize("content", [b"", b"abc", BIG])
async def test_what_is_put_can_be_got(storage: Storage, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    stored = await storage.put("audio/one.wav", path, "audio/wav")
    assert stored.size_bytes == len(content)
    assert stored.content_sha256 == hashlib.sha256(content).hexdigest()
    assert await read(storage, "audio/one.wav") == content
    await storage.delete("audio/one.wav")
    await storage.delete("audio/one.wav")
    with pytest.raises(PlatformError) as failed:
        await read(storage, "audio/one.wav")
    assert failed.value.reason == "OBJECT_NOT_FOUND"


async def test_a_piece_with_a_head(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BIG)
    size = module.PART_BYTES + 5
    stored = await storage.put(
        "audio/a/chunk_001.wav", path, "x/y", head=b"head", start=9, size=size
    )
    wanted = b"head" + BIG[9 : 9 + size]
    assert stored.content_sha256 == hashlib.sha256(wanted).hexdigest()
    assert await read(storage, "audio/a/chunk_001.wav") == wanted


async def test_a_file_that_shrinks_or_is_gone_is_no_fault_of_the_storage(
    storage: Storage, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    with pytest.raises(OSError, match="shorter"):
        await storage.put("audio/one.wav", path, "audio/wav", size=10)
    with pytest.raises(OSError, match="shorter"):
        await storage.put("audio/one.wav", path, "audio/wav", size=module.PART_BYTES * 2)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        await storage.put("audio/one.wav", path, "audio/wav")
    with pytest.raises(PlatformError, match="no object"):
        await read(storage, "audio/one.wav")


@pytest.mark.parametrize(
    "key", ["../x.wav", "/x.wav", "a//b.wav", "a/..", "a b.wav", "audio/x", ""]
)
async def test_keys_stay_inside(tmp_path: Path, key: str) -> None:
    storage = Storage(f"file://{tmp_path}/store")
    with pytest.raises(ValueError, match="not a key"):
        await storage.delete(key)


async def test_signed_addresses_can_be_downloaded(s3: ThreadedMotoServer, tmp_path: Path) -> None:
    storage = Storage("s3://kept/p")
    path = tmp_path / "file"
    path.write_bytes(b"sound")
    await storage.put("audio/one.wav", path, "audio/wav")
    (url,) = await storage.sign(["audio/one.wav"], 60.0)
    assert "X-Amz-Expires=60&" in url
    with urlopen(url) as answer:
        assert answer.read() == b"sound"
        assert answer.headers["Content-Type"] == "audio/wav"
    assert await storage.sign([], 60.0) == []


async def test_a_folder_signs_nothing(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as failed:
        await Storage(f"file://{tmp_path}/store").sign(["audio/one.wav"], 60.0)
    assert failed.value.reason == "SIGNING_NOT_SUPPORTED"


async def test_a_bucket_that_is_not_there_is_refused(
    s3: ThreadedMotoServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(BIG)
    storage = Storage("s3://elsewhere")
    for size in (3, len(BIG)):
        with pytest.raises(PlatformError) as failed:
            await storage.put("audio/one.wav", path, "audio/wav", size=size)
        assert failed.value.reason == "STORAGE_REFUSED"


async def test_a_storage_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    path = tmp_path / "file"
    path.write_bytes(b"sound")
    with s3_environment(server):
        storage = Storage("s3://kept")
        server.stop()
        for call in (
            storage.put("audio/one.wav", path, "audio/wav"),
            storage.delete("audio/one.wav"),
        ):
            with pytest.raises(PlatformError) as failed:
                await call
            assert failed.value.reason == "STORAGE_UNAVAILABLE"
            assert "127.0.0.1" not in failed.value.message + failed.value.remedy


async def test_what_a_killed_writer_left_goes_with_the_object(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/store")
    path = tmp_path / "store/audio/one.wav#1"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    await storage.delete("audio/one.wav")
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "bucket",
        "ftp://host/x",
        "s3://",
        "s3:/bucket",
        "s3://key:secret@bucket/x",
        "s3://bucket?endpoint=x",
        "file://relative/x",
        "file:///",
        "file:///proc/nowhere",
        "az://container/prefix",
        "http://host/x",
    ],
)
def test_an_address_that_cannot_work_is_refused_at_the_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(
        SettingsError, match=r"SOUNDHASH_STORAGE_URL.*STORAGE_URL_INVALID"
    ) as failed:
        open_storage(Settings.from_env({}, storage_url=url))
    assert "secret" not in str(failed.value)


def test_no_storage_is_the_default() -> None:
    assert open_storage(Settings.from_env({})) is None

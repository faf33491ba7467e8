"""The program as a user runs it, on a real platform."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.media import encode
from tests.platforms import RunningPlatform
from tests.sounds import tune

from soundhash.cli import main

PROGRAM = str(Path(sys.executable).with_name("soundhash"))
RATE_HZ = 8000
NO_ID = "00000000-0000-4000-8000-000000000000"

MATCH_KEYS = [
    "id",
    "video_id",
    "title",
    "source_url",
    "external_id",
    "clip_start_s",
    "clip_end_s",
    "video_start_s",
    "video_end_s",
    "speed",
    "pitch",
    "confidence",
    "on_air",
]


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs the program in the media folder against one server.

    Calls run in this process, as starting a hundred interpreters takes minutes; `program` is
    for what concerns the process itself.
    """

    address: str
    folder: Path

    def environment(self, **changed: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SOUNDHASH_")}
        return {**kept, "SOUNDHASH_ADDRESS": self.address, "COLUMNS": "120", **changed}

    def __call__(self, *arguments: str | Path, stdin: bytes = b"", status: int = 0) -> Told:
        """Runs it to its end and checks its exit status."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "12")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "environ", {**self.environment()})
            patch.setattr(sys, "argv", ["soundhash", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.chdir(self.folder)
            with pytest.raises(SystemExit) as ended:
                main()
        printed, errors = (one.buffer.getvalue().decode() for one in (out, err))
        return checked(Told(ended.value.code or 0, printed, errors), status)

    def program(self, *arguments: str | Path, stdin: bytes = b"", status: int = 0) -> Told:
        """The same in a process of its own."""
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return checked(Told(done.returncode, done.stdout.decode(), done.stderr.decode()), status)

    def json(self, *arguments: str | Path, stdin: bytes = b"", status: int = 0) -> list[Any]:
        """The lines of JSON that it prints."""
        done = self(*arguments, "--json", stdin=stdin, status=status)
        return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True, slots=True)
class Told:
    """How a run ended and what it printed."""

    status: int | str
    stdout: str
    stderr: str


def checked(told: Told, status: int) -> Told:
    assert told.status == status, told
    assert "Traceback" not in told.stderr, told.stderr
    assert "\x1b" not in told.stdout + told.stderr, "no styles in a pipe"
    return told


@pytest.fixture(scope="module")
def shell(platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Three recordings ("Known 1" to "Known 3", seeds 701 to 703), indexed; clips and junk."""
    folder = tmp_path_factory.mktemp("cli")
    for number in (1, 2, 3):
        path = folder / "songs" / ("deep" if number == 3 else ".") / f"Known {number}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(tune(20.0, 700 + number), "mp3", rate_hz=44100, bit_rate=96_000))
    (folder / "songs/notes.txt").write_text("not media")
    (folder / "clip.wav").write_bytes(encode(tune(20.0, 702)[5 * RATE_HZ : 12 * RATE_HZ]))
    (folder / "unknown.wav").write_bytes(encode(tune(6.0, 799)))
    (folder / "short.wav").write_bytes(encode(tune(0.4, 702)))
    (folder / "junk.mp3").write_bytes(b"this is not media at all " * 40)
    made = Shell(platform.address, folder)
    lines = made.json("ingest", "songs", "--wait", "--channel", "Tests")
    assert [line["state"] for line in lines] == ["SUCCEEDED"] * 3
    return made


def video_ids(shell: Shell) -> dict[str, str]:
    """Ids of the known recordings by title."""
    return {line["title"]: line["id"] for line in shell.json("videos", "--channel", "Tests")}


# ---- ingest ----


def test_ingest_is_in_order_and_repeatable(shell: Shell) -> None:
    lines = shell.json("ingest", "songs", "songs/Known 1.mp3", "--wait")
    assert [list(line) for line in lines] == [
        ["source", "job_id", "video_id", "state", "title", "failure"]
    ] * 4
    assert [line["source"] for line in lines] == [
        "songs/Known 1.mp3",
        "songs/Known 2.mp3",
        "songs/deep/Known 3.mp3",
        "songs/Known 1.mp3",
    ]
    assert [line["title"] for line in lines] == ["Known 1", "Known 2", "Known 3", "Known 1"]
    assert all(line["failure"] is None for line in lines)
    known = video_ids(shell)
    assert [line["video_id"] for line in lines] == [known[line["title"]] for line in lines]
    printed = shell("ingest", "songs", "--wait").stdout
    assert "3 sources: 3 known already" in printed


def test_ingest_goes_on_after_a_failure(shell: Shell) -> None:
    lines = shell.json(
        "ingest",
        "nothing here.mp3",
        "junk.mp3",
        "file:///etc/passwd",
        "http://127.0.0.1:9/x.mp3",
        "songs/Known 1.mp3",
        "--wait",
        status=1,
    )
    assert [line["state"] for line in lines] == ["FAILED"] * 4 + ["SUCCEEDED"]
    reasons = [line["failure"]["reason"] for line in lines[:4]]
    assert reasons[0] == "FILE_NOT_FOUND"
    assert reasons[1] == "NOT_MEDIA"
    assert reasons[3] == "URL_NOT_ALLOWED"
    assert all(line["failure"]["message"] and line["failure"]["remedy"] for line in lines[:4])
    assert lines[1]["job_id"] and lines[0]["job_id"] is None

    told = shell("ingest", "nothing here.mp3", "songs/Known 1.mp3", "--wait", status=1)
    assert "nothing here.mp3: There is no such file" in told.stderr
    assert "1 known already, 1 failed" in told.stdout


def test_ingest_with_own_words(shell: Shell) -> None:
    path = shell.folder / "named.wav"
    path.write_bytes(encode(tune(4.0, 711)))
    (queued,) = shell.json(
        "ingest",
        *("named.wav", "--title", "A [given] title", "--external-id", "cli-711"),
        *("--source-url", "https://www.youtube.com/watch?v=abc", "--channel", "Other"),
    )
    assert queued["job_id"] and queued["title"] == "A [given] title"
    states = shell.json("jobs", "--watch", queued["job_id"])
    assert states[-1]["state"] == "SUCCEEDED"
    assert states[-1]["parameters"]["external_id"] == "cli-711"
    (video,) = shell.json("videos", "--external-id", "cli-711")
    assert video["title"] == "A [given] title" and video["channel"] == "Other"
    assert "A [given] title" in shell("videos", "--query", "given title").stdout
    (answer,) = shell.json("match", "named.wav")
    assert answer["matches"][0]["source_url"].startswith("https://www.youtube.com/watch?v=abc")
    assert "https://www.youtube.com/watch?v=abc" in shell("match", "named.wav").stdout
    (changed,) = shell.json("update", video["id"], "--title", "Renamed", "--channel", "")
    assert (changed["title"], changed["channel"]) == ("Renamed", "")
    shell("delete", video["id"])
    assert shell.json("videos", "--external-id", "cli-711") == []
    assert shell.json("match", "named.wav")[0]["matches"] == []
    assert shell.json("delete", video["id"], status=1)[0]["error"]["reason"] == "VIDEO_NOT_FOUND"


# ---- match ----


def test_match_answers_in_order(shell: Shell) -> None:
    clips = ["clip.wav", "junk.mp3", "unknown.wav", "short.wav", "none.wav", "clip.wav"]
    lines = shell.json("match", *clips, "--top", "3", status=1)
    assert [line["clip"] for line in lines] == clips
    found = lines[0]["matches"][0]
    assert list(found) == MATCH_KEYS
    assert found["title"] == "Known 2"
    assert found["video_start_s"] == pytest.approx(5.0, abs=0.1)
    assert found["clip_start_s"] == pytest.approx(0.0, abs=0.1)
    assert found["clip_end_s"] == pytest.approx(7.0, abs=0.3)
    assert 0.9 < found["confidence"] <= 1
    assert list(lines[0]) == ["clip", "matches", "elapsed_s", "missing"]
    assert lines[0]["elapsed_s"] > 0 and lines[0]["missing"] == []
    errors = [line.get("error", {}).get("reason") for line in lines]
    assert errors == [None, "NOT_MEDIA", None, "CLIP_TOO_SHORT", "FILE_NOT_FOUND", None]
    assert all(set(line["error"]) == {"reason", "message"} for line in lines if "error" in line)
    assert lines[2]["matches"] == []


def test_a_match_is_explained_and_drawn(shell: Shell) -> None:
    (line,) = shell.json("match", "clip.wav")
    match_id = line["matches"][0]["id"]
    assert match_id in shell("matches").stdout
    said = shell("explain", match_id).stdout
    for words in ("Known 2", "of the clip is 0:05", "Yes: score", "peaks lie on one another"):
        assert words in said, words
    for name in ("why.html", "why.svg", "why.png"):
        assert shell("explain", match_id, "-o", name).stdout == ""
        assert (shell.folder / name).stat().st_size > 20_000
    (why,) = shell.json("explain", "clip.wav")
    assert (why["match"]["id"], why["from_kept"]) == ("", False)
    assert why["place"]["title"] == "Known 2"
    (why,) = shell.json("explain", match_id, "--clip", "clip.wav")
    assert (why["match"]["id"], why["from_kept"]) == (match_id, False)
    assert "matches nothing" in shell("explain", "unknown.wav", status=1).stderr
    assert "There is no match" in shell("explain", NO_ID, status=1).stderr
    assert "none.wav" in shell("explain", "none.wav", status=1).stderr
    for wrong in (("why", "-o", "why.pdf"), (NO_ID, "--video", NO_ID), ("a", "--clip", "b")):
        shell("explain", *wrong, status=2)


def test_an_unknown_clip_is_a_normal_answer(shell: Shell) -> None:
    (line,) = shell.json("match", "unknown.wav", status=0)
    assert line["matches"] == []
    assert "no match" in shell("match", "unknown.wav").stdout


def test_match_for_people(shell: Shell) -> None:
    told = shell("match", "clip.wav", "unknown.wav", "junk.mp3", status=1)
    head, first, second = told.stdout.splitlines()
    assert head.split()[:2] == ["clip", "video"]
    assert first.startswith("clip.wav") and "Known 2" in first and "0:05.0 – 0:12" in first
    assert "no match" in second
    assert told.stderr.startswith("error: junk.mp3: ") and told.stderr.count("\n") == 1


def test_match_reads_standard_input(shell: Shell) -> None:
    (line,) = shell.json("match", "-", stdin=(shell.folder / "clip.wav").read_bytes())
    assert line["clip"] == "-" and line["matches"][0]["title"] == "Known 2"


def test_past_matches(shell: Shell) -> None:
    shell("match", "clip.wav")
    lines = shell.json("matches", "--video", video_ids(shell)["Known 2"], "--limit", "1")
    assert len(lines) == 1 and lines[0]["title"] == "Known 2" and lines[0]["parts"]["score"] > 3
    assert "Known 2" in shell("matches", "--limit", "5").stdout


# ---- listen ----


def test_listen_as_fast_as_it_goes(shell: Shell) -> None:
    events = shell.json("listen", "clip.wav", "--fast")
    kinds = [event["event"] for event in events]
    assert kinds[-1] == "summary" and "provisional" in kinds
    (final,) = [event for event in events if event["event"] == "final"]
    assert list(final["match"]) == MATCH_KEYS and final["match"]["title"] == "Known 2"
    assert final["match"]["video_start_s"] == pytest.approx(5.0, abs=0.2)
    assert events[-1]["match_count"] == 1
    told = shell("listen", "clip.wav", "--fast").stdout
    assert "perhaps" in told and "match   Known 2" in told
    assert "no match" in shell("listen", "unknown.wav", "--fast").stdout


def test_listen_to_raw_audio_from_a_pipe(shell: Shell) -> None:
    pcm = (tune(20.0, 702)[5 * RATE_HZ : 12 * RATE_HZ] * 32767).astype("<i2").tobytes()
    options = ["--fast", "--json", "--pcm", "s16le:8000:1"]
    lines = shell.program("listen", "-", *options, stdin=pcm).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["match"]["title"] for e in events if e["event"] == "final"] == ["Known 2"]


@pytest.mark.parametrize(("ending", "length_s", "ahead_s"), [("wav", 3, 0.5), ("mp3", 6, 4)])
def test_listen_at_its_own_pace(shell: Shell, ending: str, length_s: float, ahead_s: float) -> None:
    """Exactly where the rate is known; else some seconds ahead until the server has heard."""
    path = shell.folder / f"pace.{ending}"
    path.write_bytes(encode(tune(length_s, 702), ending, rate_hz=44100))
    began = time.monotonic()
    shell.json("listen", path.name)
    assert length_s - ahead_s < time.monotonic() - began < length_s + 5


def test_listen_to_what_is_no_audio(shell: Shell) -> None:
    told = shell("listen", "junk.mp3", "--fast", status=1)
    assert told.stderr.startswith("error: ") and told.stderr.count("\n") == 1
    assert "none.wav" in shell("listen", "none.wav", status=1).stderr


# ---- the rest ----


def test_jobs(shell: Shell) -> None:
    shell("ingest", "junk.mp3", "--wait", status=1)
    (summary,) = shell.json("jobs", "--failed")
    groups = {group["reason"]: group for group in summary["groups"]}
    assert groups["NOT_MEDIA"]["failed"] >= 1 and groups["NOT_MEDIA"]["remedy"]
    assert summary["paused_hosts"] == []
    told = shell("jobs", "--failed").stdout
    assert "NOT_MEDIA" in told and groups["NOT_MEDIA"]["remedy"] in told
    assert groups["NOT_MEDIA"]["example"] in told
    junk = shell.json("jobs", "--reason", "not_media", "--state", "failed", "--kind", "ingest")
    assert any(job["parameters"]["file_name"] == "junk.mp3" for job in junk)
    assert "queued again" in shell("jobs", "--retry-reason", "NO_SUCH_REASON").stdout
    (again,) = shell.json("jobs", "--retry-reason", "no_such_reason", "--retry-channel", NO_ID)
    assert again == {"queued": 0, "not_retryable": 0}
    assert "no jobs" in shell("jobs", "--parent", NO_ID).stderr
    done = shell.json("jobs", "--state", "succeeded", "--limit", "2")
    assert {job["state"] for job in done} == {"SUCCEEDED"}
    assert shell.json("jobs", done[0]["id"])[0] == done[0]
    assert shell.json("jobs", "--cancel", done[0]["id"])[0]["state"] == "SUCCEEDED"
    assert "error: " in shell("jobs", "--retry", done[0]["id"], status=1).stderr
    failed = groups["NOT_MEDIA"]["example_job_id"]
    shell("jobs", "--watch", failed, status=1)
    assert "succeeded" in shell("jobs").stdout


def test_stats_and_index(shell: Shell) -> None:
    (stats,) = shell.json("stats")
    assert stats["video_count"] >= 3 and stats["jobs"]["SUCCEEDED"] >= 3
    (index,) = shell.json("index")
    assert index["video_count"] >= 3 and index["params_digest"] == stats["params_digest"]
    assert shell.json("index", "--compact")[0]["volume_count"] >= 1
    assert "videos" in shell("stats").stdout and "triples" in shell("index").stdout


def test_compare_and_fingerprint(shell: Shell) -> None:
    known = video_ids(shell)["Known 2"]
    (answer,) = shell.json("compare", known, "clip.wav")
    assert answer["same_audio"] and answer["offset_s"] == pytest.approx(5.0, abs=0.2)
    (passage,) = answer["passages"]
    assert passage["first_start_s"] == pytest.approx(5.0, abs=0.3)
    assert passage["second_start_s"] == pytest.approx(0.0, abs=0.3)
    assert passage["parts"]["score"] > 3.0
    told = shell("compare", known, "clip.wav").stdout.splitlines()
    assert "in the second" in told[-2] and told[-1].startswith("0:05.0 – ")
    assert "no" in shell("compare", "unknown.wav", "clip.wav").stdout.splitlines()[0]
    (stored,) = shell.json("fingerprint", known)
    (made,) = shell.json("fingerprint", "songs/Known 2.mp3")
    assert made["segments"] == stored["segments"] and made["segments"][0]["landmarks"]
    assert made["segments"][0]["md5"] in shell("fingerprint", "songs/Known 2.mp3").stdout


def test_videos(shell: Shell) -> None:
    assert set(video_ids(shell)) == {"Known 1", "Known 2", "Known 3"}
    one = video_ids(shell)["Known 1"]
    assert shell.json("videos", one)[0]["duration_s"] == pytest.approx(20.0, abs=0.2)
    assert [v["title"] for v in shell.json("videos", "--query", "known 3")] == ["Known 3"]
    assert len(shell.json("videos", "--limit", "2")) == 2
    limited = shell("videos", "--limit", "1")
    assert "see --limit" in limited.stderr
    assert "no videos" in shell("videos", "--query", "nothing like this").stderr


# ---- what goes wrong ----


@pytest.mark.parametrize(
    "arguments",
    [
        ["match"],
        ["match", "x.wav", "--top", "0"],
        ["match", "x.wav", "--min-confidence", "1.5"],
        ["nonsense"],
        ["ingest", "a", "b", "--title", "c"],
        ["listen", "-", "--pcm", "s16:1:1"],
        ["jobs", "--state", "done"],
        ["jobs", "--failed", "--watch", "x"],
        ["jobs", "--kind", "film"],
        ["update", "x"],
        ["videos", "--query", "x", "--channel", "y"],
        ["up", "--port", "70000"],
    ],
)
def test_wrong_usage(shell: Shell, arguments: list[str]) -> None:
    told = shell(*arguments, status=2)
    assert "Usage: " in told.stderr and told.stdout == ""


@pytest.mark.parametrize("command", ["stats", "match", "ingest", "listen"])
def test_no_server(shell: Shell, command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments: Sequence[str] = [] if command == "stats" else ["clip.wav", "clip.wav"]
        arguments = arguments[:1] if command == "listen" else arguments
        told = shell(command, *arguments, "--address", address, status=1)
    assert told.stderr == f"error: no server at {address}: start one with `soundhash up`\n"
    assert told.stdout == ""


def test_the_address_may_stand_before_the_command(shell: Shell) -> None:
    elsewhere = Shell("127.0.0.1:1", shell.folder)
    assert elsewhere.json("--address", shell.address, "stats")[0]["video_count"] >= 3
    assert elsewhere.json("stats", "--address", shell.address)[0]["video_count"] >= 3
    told = elsewhere("--address", "http://x", "stats", status=1)
    assert "is not an address" in told.stderr


def test_a_reader_that_goes_away_is_no_drama(shell: Shell) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} match clip.wav unknown.wav clip.wav --json | true"],
        cwd=shell.folder,
        env=shell.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["listen", "match", "ingest"])
def test_control_c_is_quiet(shell: Shell, command: str) -> None:
    many = {
        "listen": ["clip.wav"],
        "match": ["clip.wav"] * 400 + ["--json"],
        "ingest": ["songs"] * 400,
    }
    process = subprocess.Popen(
        [PROGRAM, command, *many[command]],
        cwd=shell.folder,
        env=shell.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(1)  # it is at work
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == b""


def test_progress_on_a_terminal(shell: Shell) -> None:
    path = shell.folder / "long.mp3"
    path.write_bytes(encode(tune(60.0, 721), "mp3", rate_hz=44100))
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "ingest", "long.mp3", "songs", "--wait"],
        cwd=shell.folder,
        env=shell.environment(TERM="xterm-256color", COLUMNS="100", LINES="30"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        close_fds=True,
    )
    os.close(follower)
    shown = b""
    while process.poll() is None or select.select([leader], [], [], 0)[0]:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
            shown += part
    os.close(leader)
    assert process.wait(30) == 0
    text = shown.decode()
    assert "Traceback" not in text
    assert "━" in text and "all sources" in text and "of 4" in text
    assert "indexed" in text and "4 sources: 1 indexed, 3 known already" in text


# ---- the platform behind it ----


def test_the_platform_takes_over(shell: Shell, platform: RunningPlatform) -> None:
    """`up` becomes the platform's process; it refuses a second copy on the same data."""
    told = shell.program("up", "--data-dir", platform.data_dir, "--port", "0", status=1)
    assert str(platform.up.pid) in told.stderr


def test_unknown_options_are_judged_by_the_platform(shell: Shell) -> None:
    told = shell.program("migrate", "--nonsense", status=2)
    assert "--nonsense" in told.stderr


def test_help_is_quick_and_complete(shell: Shell) -> None:
    help_text = shell("--help").stdout
    for command in (
        *("up", "serve", "work", "migrate", "doctor", "bench", "ingest", "jobs", "match"),
        *("listen", "matches", "compare", "fingerprint", "videos", "update", "delete"),
        *("stats", "index"),
    ):
        assert f"\n  {command} " in help_text
    code = (
        "import sys, time; sys.argv = ['soundhash', '--help']; import soundhash.cli as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print(time.process_time(), 'grpc' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    cpu_s, loaded_grpc = done.stderr.split()
    assert loaded_grpc == "False"
    assert float(cpu_s) < 0.5
    assert shell("--version").stdout.startswith("soundhash ")


def test_bench_measures_without_a_server(shell: Shell) -> None:
    done = shell.program("bench", "--hours", "0.1", "--clips", "2", "--callers", "1", "--json")
    (size,) = json.loads(done.stdout)["sizes"]
    assert size["recall"]["clean"] == {"found": 2, "clips": 2}
    assert "soundhash-bench.svg" in done.stderr
    assert shell("bench", "--clips", "0", status=2).stderr

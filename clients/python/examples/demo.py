"""The main job on real processes: recordings in, a damaged clip streamed, the answer as a table.

    make demo [MEDIA=folder of recordings] [DATA=folder to keep the data in]

Starts the platform on the embedded database and queue, uploads the recordings (or a few that it
makes itself), cuts ten seconds out of one, adds noise at 5 dB below the music, encodes that as a
24 kbit/s MP3, streams it to the server as a live client would, and prints what came back.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.python.examples.recordings import CLIP_S, cut_clip, make_recordings
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

import soundhash

MEDIA_ENDINGS = frozenset({".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".wav", ".flac", ".webm"})


@contextmanager
def platform(data_dir: Path) -> Iterator[str]:
    """Runs `soundhash up` on a free port; gives its address, and stops it at the end."""
    up = subprocess.Popen(
        [Path(sys.executable).with_name("soundhash"), "up", "--data-dir", data_dir, "--port", "0"],
        env={**os.environ, "SOUNDHASH_LOG_LEVEL": "warning"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None
        line = up.stdout.readline().strip()
        ready = re.search(r"ready on (\S+)", line)
        if ready is None:
            raise SystemExit("The platform did not start; `soundhash doctor` says why.")
        print(line)
        yield ready.group(1)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)


def ingest(client: soundhash.Client, paths: list[Path]) -> None:
    """Uploads every recording, then waits until all are indexed."""
    with Progress(TextColumn("{task.description}"), BarColumn()) as progress:
        bar = progress.add_task(f"indexing {len(paths)} recordings", total=len(paths))
        jobs = [client.upload(path) for path in paths]
        for job in jobs:
            done = client.wait_for_job(job.id)
            if done.failure is not None:
                print(f"{done.source}: {done.failure.message} {done.failure.remedy}")
            progress.advance(bar)


def listen(client: soundhash.Client, clip: bytes) -> list[soundhash.Match]:
    """Streams the clip in small pieces and prints the answers as they come."""
    pieces = (clip[at : at + 2048] for at in range(0, len(clip), 2048))
    found = []
    said = ""
    for event in client.stream(pieces):
        match event:
            case soundhash.ProvisionalMatch():
                guess = (
                    f"{event.match.title} from {event.match.video_start_s:.1f} s"
                    f" ({event.match.confidence:.0%})"
                )
                if guess != said:
                    print(f"  heard {event.heard_s:4.1f} s: {guess}")
                    said = guess
            case soundhash.FinalMatch():
                found.append(event.match)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="SoundHash finds where a damaged clip is from.")
    parser.add_argument("--media", type=Path, help="folder of recordings; default: made-up ones")
    parser.add_argument("--data-dir", type=Path, default=Path("data/demo"))
    arguments = parser.parse_args()
    data_dir = arguments.data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    if arguments.media is None:
        paths = make_recordings(data_dir / "recordings")
    else:
        paths = sorted(
            path for path in arguments.media.rglob("*") if path.suffix.lower() in MEDIA_ENDINGS
        )
        if not paths:
            parser.error(f"no recordings in {arguments.media}")
    with platform(data_dir) as address, soundhash.Client(address) as client:
        ingest(client, paths)
        # The longest file is a recording worth cutting, whatever the folder holds.
        source = max(paths, key=lambda path: path.stat().st_size)
        clip, start_s = cut_clip(source)
        print(f"streaming {CLIP_S} s of {source.stem!r} from {start_s:.1f} s, noisy, 24 kbit/s")
        found = listen(client, clip)
    table = Table("video", "from", "to", "speed", "confidence", title="The clip is from")
    for match in found:
        table.add_row(
            match.title,
            f"{match.video_start_s:.1f} s",
            f"{match.video_end_s:.1f} s",
            f"{match.speed:.3f}",
            f"{match.confidence:.1%}",
        )
    Console().print(table if found else "no match")
    return 0 if found and found[0].title == source.stem else 1


if __name__ == "__main__":
    sys.exit(main())

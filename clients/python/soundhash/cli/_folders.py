"""`soundhash ingest DIR --sync`: the catalogue is made equal to folders of the server's machine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import connect

if TYPE_CHECKING:
    from soundhash import BatchProgress, Client, Job


@dataclass(frozen=True, slots=True)
class Sync:
    """What the options say about all folders."""

    channel: str
    watch: bool
    dry_run: bool
    wait: bool
    as_json: bool


def sync(context: typer.Context, address: str | None, folders: list[str], wishes: Sync) -> bool:
    """Has folders scanned, one after the other, and tells what came of it. Whether all went well.

    Without `wait` each is left to the server as soon as it has been compared.
    """
    from soundhash import SoundHashError, Unavailable  # noqa: PLC0415 - loads gRPC

    all_well = True
    with connect(context, address) as client:
        for folder in folders:
            # Where the folder is not this machine's, the server says so.
            path = str(Path(folder).expanduser().resolve())
            try:
                job = client.scan_folder(
                    path, channel=wishes.channel, dry_run=wishes.dry_run, watch=wishes.watch
                )
                job = _follow(client, job, wishes)
            except Unavailable:
                raise
            except SoundHashError as error:
                all_well = False
                _tell_refused(folder, error, wishes.as_json)
                continue
            _tell(folder, job, wishes)
            all_well = all_well and not _is_bad(job)
    return all_well


def counts_of(job: Job) -> BatchProgress:
    """How the files of a folder's job stand."""
    from soundhash import BatchProgress  # noqa: PLC0415 - loads gRPC

    if job.batch_result is not None:
        return job.batch_result.counts
    return job.progress.batch or BatchProgress()


def _follow(client: Client, job: Job, wishes: Sync) -> Job:
    """The job as soon as there is to tell what was asked for."""
    from soundhash.cli._progress import FolderDisplay  # noqa: PLC0415 - loads gRPC

    last = job
    with FolderDisplay() as display, closing(client.watch_job(job.id)) as states:
        try:
            for last in states:
                display.show(last)
                compared = last.state == "WAITING" or counts_of(last).listing_done
                if compared and not wishes.wait and not wishes.dry_run:
                    break
        except KeyboardInterrupt:
            text = f"the job goes on; `soundhash jobs --cancel {job.id}` ends it"
            display.print(f"[dim]{text}[/]", stderr=True)
            raise
    return last


def _is_bad(job: Job) -> bool:
    if job.state.finished:
        return job.state != "SUCCEEDED" or counts_of(job).failed > 0
    return False


def _tell(folder: str, job: Job, wishes: Sync) -> None:
    if wishes.as_json:
        output.print_json(_json(folder, job, wishes))
        return
    out = output.console()
    name = output.escape(folder)
    if job.state in ("FAILED", "CANCELLED"):
        why = job.failure.message if job.failure else "The job was cancelled."
        output.print_error(f"{folder}: {why} {job.failure.remedy if job.failure else ''}".rstrip())
        return
    words = {True: "would be", False: "synced"}[wishes.dry_run]
    doing = "" if job.state.finished else f" [dim]job {job.id}[/]"
    out.print(f"[green]{words:<8}[/] {name}: {summary(counts_of(job), wishes.dry_run)}{doing}")
    result = job.batch_result
    if result is None:
        if counts_of(job).unreadable:
            text = f"`soundhash jobs {job.id} --json` names the unreadable files at the end"
            output.console(stderr=True).print(f"[dim]{text}[/]", soft_wrap=True)
        return
    if wishes.dry_run:
        for one in result.new_items:
            out.print(f"  [green]new[/]         {output.escape(_one_line(one))}", soft_wrap=True)
    for one in result.unreadable_items:
        out.print(f"  [yellow]unreadable[/]  {output.escape(_one_line(one))}", soft_wrap=True)


def summary(found: BatchProgress, dry_run: bool = False) -> str:
    """The counts in words, without those that are 0."""
    under_way = found.queued + found.running + found.retrying
    counts = {
        "indexed": found.indexed,
        "to index" if dry_run else "under way": under_way,
        "updated": found.updated,
        "deleted": found.deleted,
        "unchanged": found.known,
        "duplicate": found.duplicates,
        "skipped": found.skipped,
        "unreadable": found.unreadable,
        "failed": found.failed,
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing"


def _json(folder: str, job: Job, wishes: Sync) -> dict[str, Any]:
    found, result = counts_of(job), job.batch_result
    names = (
        "listed known skipped updated deleted duplicates unreadable queued running retrying"
        " indexed failed"
    )
    failure = job.failure
    return {
        "source": folder,
        "job_id": job.id,
        "state": str(job.state),
        "dry_run": wishes.dry_run,
        "watch": wishes.watch,
        "counts": {name: getattr(found, name) for name in names.split()},
        "new_items": list(result.new_items) if result else [],
        "unreadable_items": list(result.unreadable_items) if result else [],
        "failure": failure
        and {"reason": failure.reason, "message": failure.message, "remedy": failure.remedy},
    }


def _tell_refused(folder: str, error: Any, as_json: bool) -> None:
    if not as_json:
        output.print_error(str(error))
        return
    failure = {"reason": error.reason, "message": error.explanation, "remedy": error.remedy}
    output.print_json({"source": folder, "job_id": None, "state": "FAILED", "failure": failure})


def _one_line(text: str) -> str:
    """A file's name on one line, whatever is in it."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)

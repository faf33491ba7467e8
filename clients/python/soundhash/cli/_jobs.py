"""`soundhash jobs`: what workers do, have done, and could not do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, LimitOption, connect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soundhash import BatchProgress, Client, FailureSummary, Job


def jobs(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Only these.", show_default=False)
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="S",
            help="Only jobs in this state; may be repeated.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="K",
            help="Only jobs of this kind (ingest, channel, folder, duplicates); may be repeated.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str,
        typer.Option(
            metavar="REASON", help="Only jobs whose failure has this reason.", show_default=False
        ),
    ] = "",
    parent: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Only jobs that this channel or folder job has started.",
            show_default=False,
        ),
    ] = "",
    failed: Annotated[
        bool,
        typer.Option(
            "--failed", help="Failures by reason, with what to do, and hosts that are left alone."
        ),
    ] = False,
    watch: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Follow a job until it is finished.", show_default=False),
    ] = None,
    cancel: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Cancel a job; may be repeated.", show_default=False),
    ] = None,
    retry: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Queue a failed job again.", show_default=False),
    ] = None,
    retry_reason: Annotated[
        str,
        typer.Option(
            metavar="REASON",
            help="Queue all jobs again that failed for this reason.",
            show_default=False,
        ),
    ] = "",
    retry_channel: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Queue all failed jobs of this channel again; with --retry-reason only those.",
            show_default=False,
        ),
    ] = "",
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List jobs, newest first; follow, cancel or retry them.

    A job that is followed and fails makes the exit status 1.
    """
    asked = [
        bool(ids),
        bool(state or kind or reason or parent),
        failed,
        watch is not None,
        bool(cancel),
        bool(retry),
        bool(retry_reason or retry_channel),
    ]
    if sum(asked) > 1:
        raise typer.BadParameter("ask for one thing at a time")
    with connect(context, address) as client:
        if watch is not None:
            _watch(client, watch, as_json)
        elif cancel:
            _show([client.cancel_job(one) for one in cancel], as_json)
        elif retry:
            _show([client.retry_job(one) for one in retry], as_json)
        elif retry_reason or retry_channel:
            _retry_many(client, retry_reason, retry_channel, as_json)
        elif ids:
            _show([client.get_job(one) for one in ids], as_json)
        elif failed:
            _show_failed(client.failure_summary(), as_json)
        else:
            try:
                found = client.jobs(
                    states=state or (),
                    kinds=kind or (),
                    failure_reason=reason.upper(),
                    parent_id=parent,
                    limit=limit,
                )
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint="--state or --kind") from None
            _show(found, as_json)


def _show(found: Iterable[Job], as_json: bool) -> None:
    if as_json:
        for job in found:
            output.print_json(job)
        return
    rows = [
        [
            _state(job),
            output.escape(_name(job)),
            _detail(job),
            output.moment(job.update_time),
            job.id,
        ]
        for job in found
    ]
    if not rows:
        output.console(stderr=True).print("no jobs")
        return
    output.print_table(
        ["state", "source", "", "changed", "id"], rows, whole=("state", "changed", "id")
    )


_STYLES = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "RETRYING": "yellow",
    "RUNNING": "cyan",
    "WAITING": "cyan",
}


def _state(job: Job) -> str:
    style = _STYLES.get(job.state)
    word = job.state.lower()
    return f"[{style}]{word}[/]" if style else word


def _name(job: Job) -> str:
    title = job.parameters.title if job.parameters else ""
    return title or job.source


def _detail(job: Job) -> str:
    """What there is to say about a job; markup."""
    done = job.progress
    if done.batch is not None and job.state in ("RUNNING", "WAITING", "SUCCEEDED"):
        return output.escape(_counts(done.batch))
    if job.state == "RUNNING":
        share = f" {done.fraction:.0%}" if done.fraction else ""
        return f"{done.step.lower()}{share}" if done.step != "UNKNOWN" else ""
    if job.failure is not None and job.state in ("FAILED", "RETRYING"):
        tries = f" (attempt {job.attempt} of {job.max_attempts})" if job.state == "RETRYING" else ""
        return output.escape(f"{job.failure.reason}{tries}")
    return ""


def _counts(batch: BatchProgress) -> str:
    """How the videos of a channel or folder stand, in a line."""
    figures = [
        (batch.listed, "listed"),
        (batch.indexed, "indexed"),
        (batch.queued + batch.running + batch.retrying, "to go"),
        (batch.deleted, "deleted"),
        (batch.failed, "failed"),
    ]
    return ", ".join(f"{number:,} {word}" for number, word in figures if number) or "nothing yet"


def _show_failed(found: FailureSummary, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
        return
    if not found.groups and not found.paused_hosts:
        output.console(stderr=True).print("no failed jobs")
        return
    out = output.console()
    for group in found.groups:
        numbers = [(group.failed, "failed"), (group.retrying, "to be tried again")]
        count = ", ".join(f"{number:,} {word}" for number, word in numbers if number)
        style = "red" if group.failed else "yellow"
        latest = output.moment(group.latest_time)
        head = f"[{style}]{output.escape(group.reason)}[/]  {count}  [dim]last {latest}[/]"
        out.print(head, soft_wrap=True)
        if group.remedy:
            out.print(f"  {output.escape(group.remedy)}", soft_wrap=True)
        example = f"  [dim]{group.example_job_id}[/]  {output.escape(group.example)}"
        out.print(example, soft_wrap=True)
    for host in found.paused_hosts:
        left_s = (host.until - datetime.now(UTC)).total_seconds() if host.until else 0.0
        out.print(
            f"[yellow]{output.escape(host.host)}[/]  left alone for another"
            f" {output.length(max(0.0, left_s))}, until {output.moment(host.until)}"
            f"  [dim]{host.refusals} refusals in a row, last {output.escape(host.reason)}[/]",
            soft_wrap=True,
        )
    if out.is_terminal and any(group.failed for group in found.groups):
        out.print(
            "[dim]--reason REASON lists the jobs of one; --retry-reason REASON tries them again[/]",
            soft_wrap=True,
        )


def _retry_many(client: Client, reason: str, channel_id: str, as_json: bool) -> None:
    done = client.retry_jobs(failure_reason=reason.upper(), channel_id=channel_id)
    if as_json:
        output.print_json(done)
        return
    text = f"{done.queued:,} queued again"
    if done.not_retryable:
        text += f"; {done.not_retryable:,} not: their uploaded bytes are gone, send them again"
    output.console().print(text, soft_wrap=True)


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    from soundhash._errors import with_remedy  # noqa: PLC0415 - loads gRPC
    from soundhash.cli._channel_bars import ChannelDisplay  # noqa: PLC0415 - loads gRPC
    from soundhash.cli._progress import JobDisplay  # noqa: PLC0415 - loads gRPC

    job: Job | None = None
    many = client.get_job(job_id).kind in ("CHANNEL", "FOLDER")
    with ChannelDisplay() if many else JobDisplay() as display:
        for job in client.watch_job(job_id):
            if as_json:
                output.print_json(job)
            else:
                display.show(job)
    if job is None:
        return
    if not as_json:
        _show([job], as_json)
        if job.failure is not None and job.state == "FAILED":
            output.print_error(with_remedy(job.failure.message, job.failure.remedy))
    if job.state != "SUCCEEDED":
        raise typer.Exit(1)

"""`soundhash jobs`: what workers do, have done, and could not do."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._connection import AddressOption, JsonOption, LimitOption, connect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soundhash import Client, Job


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
    failed: Annotated[
        bool, typer.Option("--failed", help="Failed jobs by reason, with what to do.")
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
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List jobs, newest first; follow, cancel or retry them.

    A job that is followed and fails makes the exit status 1.
    """
    asked = [bool(ids), bool(state) or failed, watch is not None, bool(cancel), bool(retry)]
    if sum(asked) > 1:
        raise typer.BadParameter("ask for one thing at a time")
    with connect(context, address) as client:
        if watch is not None:
            _watch(client, watch, as_json)
        elif cancel:
            _show([client.cancel_job(one) for one in cancel], as_json)
        elif retry:
            _show([client.retry_job(one) for one in retry], as_json)
        elif ids:
            _show([client.get_job(one) for one in ids], as_json)
        elif failed:
            _show_failed(client.jobs(states=["FAILED"], limit=limit), as_json)
        else:
            try:
                found = client.jobs(states=state or (), limit=limit)
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint="--state") from None
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


_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "RETRYING": "yellow", "RUNNING": "cyan"}


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
    if job.state == "RUNNING":
        share = f" {done.fraction:.0%}" if done.fraction else ""
        return f"{done.step.lower()}{share}" if done.step != "UNKNOWN" else ""
    if job.failure is not None and job.state in ("FAILED", "RETRYING"):
        tries = f" (attempt {job.attempt} of {job.max_attempts})" if job.state == "RETRYING" else ""
        return output.escape(f"{job.failure.reason}{tries}")
    return ""


def _show_failed(found: Iterable[Job], as_json: bool) -> None:
    groups: defaultdict[str, list[Job]] = defaultdict(list)
    for job in found:
        groups[job.failure.reason if job.failure else "UNKNOWN"].append(job)
    out = output.console()
    for reason, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        remedy = members[0].failure.remedy if members[0].failure else ""
        if as_json:
            listed = [
                {
                    "job_id": job.id,
                    "source": job.source,
                    "message": job.failure.message if job.failure else "",
                }
                for job in members
            ]
            output.print_json(
                {"reason": reason, "count": len(members), "remedy": remedy, "jobs": listed}
            )
            continue
        out.print(f"[red]{reason}[/]  {len(members)}", soft_wrap=True)
        if remedy:
            out.print(f"  {output.escape(remedy)}", soft_wrap=True)
        for job in members:
            message = job.failure.message if job.failure else ""
            out.print(
                f"  [dim]{job.id}[/]  {output.escape(job.source)}: {output.escape(message)}",
                soft_wrap=True,
            )
    if not groups and not as_json:
        output.console(stderr=True).print("no failed jobs")


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    from soundhash._errors import with_remedy  # noqa: PLC0415 - loads gRPC
    from soundhash.cli._progress import JobDisplay  # noqa: PLC0415 - loads gRPC

    job: Job | None = None
    with JobDisplay() as display:
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

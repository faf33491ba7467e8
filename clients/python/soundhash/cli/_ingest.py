"""`soundhash ingest`: files, folders and URLs on their way into the catalogue."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from soundhash.cli import _folders
from soundhash.cli._connection import AddressOption, JsonOption, connect_async
from soundhash.cli._fetching import (
    BrowserOption,
    CookiesOption,
    LimitRateOption,
    MaxBytesOption,
    MaxDurationOption,
    PlayerClientOption,
    ProxyOption,
    UserAgentOption,
    fetch_options,
)
from soundhash.cli._sources import Source, expand

if TYPE_CHECKING:
    from soundhash import AsyncClient, FetchOptions, Job
    from soundhash.cli._progress import IngestDisplay

UPLOADS_AT_ONCE = 4
WATCHES_AT_ONCE = 32
PATIENT_RETRIES = 9
"""About 20 s with the client's pauses: a server that is killed and started again takes less."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one source. state: of its job, or FAILED when there is none.

    failure: reason, message and remedy, or None.
    """

    source: str
    job_id: str | None
    video_id: str | None
    state: str
    title: str
    failure: dict[str, str] | None
    already_indexed: bool = False

    @property
    def bad(self) -> bool:
        """Whether it ended without a video."""
        return self.state in ("FAILED", "CANCELLED")

    def to_json(self) -> dict[str, Any]:
        """The line that `ingest --json` prints."""
        return {
            "source": self.source,
            "job_id": self.job_id,
            "video_id": self.video_id,
            "state": self.state,
            "title": self.title,
            "failure": self.failure,
        }


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options say about all sources."""

    title: str
    external_id: str
    channel: str
    source_url: str
    wait: bool
    options: FetchOptions | None = None


def ingest(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders (searched for media), URLs.",
            show_default=False,
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help='Words such as "artist title": the first result of a YouTube search. '
            "May be given several times.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until everything is indexed, or has failed.")
    ] = False,
    title: Annotated[
        str, typer.Option(help="Title of the one source. Default: the file's name.")
    ] = "",
    external_id: Annotated[str, typer.Option(help="Your own identifier for the one source.")] = "",
    source_url: Annotated[
        str, typer.Option(help="Where the one file can be watched or heard.")
    ] = "",
    channel: Annotated[str, typer.Option(help="Channel, artist or collection of all.")] = "",
    cookies: CookiesOption = "",
    cookies_from_browser: BrowserOption = "",
    proxy: ProxyOption = "",
    player_client: PlayerClientOption = "",
    user_agent: UserAgentOption = "",
    max_bytes: MaxBytesOption = "",
    max_duration: MaxDurationOption = "",
    limit_rate: LimitRateOption = "",
    sync: Annotated[
        bool,
        typer.Option(
            "--sync",
            help="Make the catalogue equal to folders of the server's machine: what is new is "
            "indexed, what is gone is deleted.",
        ),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="With --sync: stay in step until the job is cancelled.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --sync: only say what would be done.")
    ] = False,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Have recordings indexed.

    Prints what became of each source, in order. Without --wait a job is left to the server;
    `soundhash jobs` shows it. Exit status 1 when a source or its job has failed. An upload that
    was interrupted goes on when the same file is ingested again.
    """
    if (watch or dry_run) and not sync:
        raise typer.BadParameter("--watch and --dry-run need --sync")
    if sync:
        if not sources or search or title or external_id or source_url:
            raise typer.BadParameter("--sync takes folders, --channel, and nothing else")
        if not _folders.sync(
            context, address, sources, _folders.Sync(channel, watch, dry_run, wait, as_json)
        ):
            raise typer.Exit(1)
        return
    found = list(expand(sources or [])) + [Source(text, search=True) for text in search or ()]
    if not found:
        raise typer.BadParameter("name files, folders or URLs, or --search")
    if len(found) > 1 and (title or external_id or source_url):
        raise typer.BadParameter("--title, --external-id and --source-url need a single source")
    options = fetch_options(
        cookies,
        cookies_from_browser,
        proxy,
        player_client,
        user_agent,
        max_bytes,
        max_duration,
        limit_rate,
    )
    wishes = Wishes(title, external_id, channel, source_url, wait, options)
    if not asyncio.run(_ingest_all(context, address, found, wishes, as_json)):
        raise typer.Exit(1)


async def _ingest_all(
    context: typer.Context,
    address: str | None,
    sources: list[Source],
    wishes: Wishes,
    as_json: bool,
) -> bool:
    """Whether all went well."""
    from soundhash.cli._progress import IngestDisplay  # noqa: PLC0415 - loads gRPC

    uploads, watches = asyncio.Semaphore(UPLOADS_AT_ONCE), asyncio.Semaphore(WATCHES_AT_ONCE)
    outcomes: list[Outcome] = []
    with IngestDisplay(len(sources), as_json) as display:
        # Without a server this fails at once; one that goes away later is given time to return.
        async with connect_async(context, address) as first:
            await first.health()
        async with connect_async(context, address, max_retries=PATIENT_RETRIES) as client:
            run = _Run(client, wishes, display, uploads, watches)
            tasks = [asyncio.create_task(run.one(source)) for source in sources]
            try:
                for task in tasks:
                    outcomes.append(await task)
                    display.outcome(outcomes[-1])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    display.summary(outcomes, wishes.wait)
    return not any(outcome.bad for outcome in outcomes)


@dataclass(frozen=True, slots=True)
class _Run:
    client: AsyncClient
    wishes: Wishes
    display: IngestDisplay
    uploads: asyncio.Semaphore
    watches: asyncio.Semaphore

    async def one(self, source: Source) -> Outcome:
        """Ingests one source. Raises only what would befall all others too."""
        from soundhash import JobState, SoundHashError  # noqa: PLC0415 - loads gRPC

        title = self.wishes.title or (source.path.stem if source.path else "")
        job_id = None
        try:
            if source.problem is not None:
                return _refused(source, title, *source.problem)
            async with self.uploads:
                job = await self._submit(source)
            job_id = job.id
            known = job.state is JobState.SUCCEEDED
            self.display.job(source, job)
            if self.wishes.wait and not known:
                async with self.watches:
                    job = await self._watch(job, source)
            return await self._outcome(source, title, job, known)
        except SoundHashError as error:
            if error.reason in ("SERVER_UNREACHABLE", "ADDRESS_INVALID"):
                raise
            return _refused(source, title, error.reason, error.explanation, error.remedy, job_id)
        except OSError as error:
            text = f"The file cannot be read: {error.strerror or error}."
            return _refused(source, title, "FILE_NOT_READABLE", text, "Check its permissions.")
        finally:
            self.display.finished(source)

    async def _submit(self, source: Source) -> Job:
        wishes = self.wishes
        if source.path is None:
            return await self.client.submit_url(
                "" if source.search else source.text,
                search=source.text if source.search else "",
                title=wishes.title,
                external_id=wishes.external_id,
                channel=wishes.channel,
                options=wishes.options,
            )
        return await self.client.upload(
            source.path,
            title=wishes.title,
            external_id=wishes.external_id,
            channel=wishes.channel,
            source_url=wishes.source_url,
            progress=lambda sent, total: self.display.sent(source, sent, total),
        )

    async def _watch(self, job: Job, source: Source) -> Job:
        async with aclosing(self.client.watch_job(job.id)) as states:
            async for state in states:
                job = state
                self.display.job(source, job)
        return job

    async def _outcome(self, source: Source, title: str, job: Job, known: bool) -> Outcome:
        from soundhash import JobState, NotFound  # noqa: PLC0415 - loads gRPC

        if job.video_id:
            # When it is deleted already, it was called what was asked for.
            with suppress(NotFound):
                title = (await self.client.get_video(job.video_id)).title
        failure = None
        if job.failure and job.state in (JobState.FAILED, JobState.RETRYING):
            failure = {
                "reason": job.failure.reason,
                "message": job.failure.message,
                "remedy": job.failure.remedy,
            }
        elif job.state is JobState.CANCELLED:
            failure = {
                "reason": "CANCELLED",
                "message": "The job was cancelled.",
                "remedy": f"Queue it again with `soundhash jobs --retry {job.id}`.",
            }
        return Outcome(
            source=source.text,
            job_id=job.id,
            video_id=job.video_id or None,
            state=str(job.state),
            title=title or (job.parameters.title if job.parameters else ""),
            failure=failure,
            already_indexed=known or bool(job.result and job.result.already_indexed),
        )


def _refused(
    source: Source,
    title: str,
    reason: str,
    message: str,
    remedy: str,
    job_id: str | None = None,
) -> Outcome:
    failure = {"reason": reason, "message": message, "remedy": remedy}
    return Outcome(source.text, job_id, None, "FAILED", title, failure)

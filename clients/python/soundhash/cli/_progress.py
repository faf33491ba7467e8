"""Progress of long work on a terminal: an overall bar and a bar for each thing under way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from soundhash import Job, JobState, JobStep
from soundhash._errors import with_remedy
from soundhash.cli import _output as output

if TYPE_CHECKING:
    from soundhash.cli._ingest import Outcome
    from soundhash.cli._sources import Source

_NAME_CHARS = 36

_DOING = {
    JobStep.FETCH: "fetching",
    JobStep.FINGERPRINT: "fingerprinting",
    JobStep.STORE: "storing",
    JobStep.COMPARE: "comparing",
}


def describe(job: Job) -> tuple[str, float | None, str]:
    """What a running job does, which part of that is done (None: unknown), and figures."""
    done, figures = job.progress, ""
    if done.step is JobStep.FETCH and done.bytes_done:
        figures = output.size(done.bytes_done)
        if done.bytes_total:
            figures += f" of {output.size(done.bytes_total)}"
    elif done.audio_done_s:
        figures = output.clock(done.audio_done_s)
        if done.audio_total_s:
            figures += f" of {output.clock(done.audio_total_s)}"
    known = done.audio_total_s or done.bytes_total or done.fraction
    return _DOING.get(done.step, "starting"), done.fraction if known else None, figures


class _Share(ProgressColumn):
    """What a bar says in figures."""

    def render(self, task: Task) -> Text:
        if "figures" in task.fields:
            return Text(str(task.fields["figures"]), style="dim")
        return Text(f"{task.completed:.0f} of {task.total:.0f}" if task.total else "")


def bars(console: Console) -> Progress:
    """Bars that vanish when the work is done; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        _Share(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Answers on stdout must stay there.
        redirect_stdout=False,
        redirect_stderr=False,
        expand=False,
    )


class Terminal:
    """Answers on stdout and bars on stderr that do not get in each other's way."""

    def __init__(self) -> None:
        self.stdout, self.stderr = output.console(), output.console(stderr=True)
        self.progress = bars(self.stderr)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def print(self, markup: str, *, stderr: bool = False) -> None:
        """A line; on a terminal above the bars."""
        wanted = self.stderr if stderr else self.stdout
        # Both are the same screen then, and only the bars' console knows where they stand.
        out = self.progress.console if wanted.is_terminal else wanted
        out.print(markup, soft_wrap=True)


class IngestDisplay(Terminal):
    """What `ingest` shows: bars for what is sent and done, a line for what is finished."""

    def __init__(self, n_sources: int, as_json: bool) -> None:
        super().__init__()
        self._json = as_json
        self._bars: dict[Source, TaskID] = {}
        self._all = self.progress.add_task("all sources", total=n_sources, visible=n_sources > 1)

    def sent(self, source: Source, n_bytes: int, total_bytes: int | None) -> None:
        """Bytes of an upload are on their way."""
        figures = output.size(n_bytes)
        if total_bytes:
            figures = f"{figures} of {output.size(total_bytes)}"
        self._show(source, "sending", n_bytes / total_bytes if total_bytes else None, figures)

    def job(self, source: Source, job: Job) -> None:
        """A job has changed."""
        if job.state is JobState.RUNNING:
            self._show(source, *describe(job))
        elif job.state is JobState.RETRYING and job.failure is not None:
            self._show(source, "trying again", None, job.failure.reason)
        else:
            self._hide(source)

    def finished(self, source: Source) -> None:
        """Nothing more happens to this source."""
        self._hide(source)
        self.progress.advance(self._all)

    def outcome(self, outcome: Outcome) -> None:
        """What became of a source."""
        if self._json:
            output.print_json(outcome.to_json())
            return
        source = escape(outcome.source)
        if outcome.failure is not None and outcome.bad:
            failure = outcome.failure
            text = escape(with_remedy(failure["message"], failure["remedy"]))
            self.print(
                f"[red]failed[/]   {source}: {text} [dim]{failure['reason']}[/]", stderr=True
            )
        elif outcome.video_id:
            word = "known  " if outcome.already_indexed else "indexed"
            title = escape(outcome.title)
            self.print(f"[green]{word}[/]  {source} → {title} [dim]video {outcome.video_id}[/]")
        else:
            self.print(f"{outcome.state.lower():<8} {source} [dim]job {outcome.job_id}[/]")

    def summary(self, outcomes: Sequence[Outcome], waited: bool) -> None:
        """The end, in one line, when there was more than one source."""
        if self._json or len(outcomes) < 2:
            return
        n_bad = sum(outcome.bad for outcome in outcomes)
        n_known = sum(outcome.already_indexed for outcome in outcomes)
        n_done = sum(outcome.video_id is not None for outcome in outcomes) - n_known
        counts = {
            "indexed": n_done,
            "known already": n_known,
            "under way (see `soundhash jobs`)": len(outcomes) - n_bad - n_known - n_done,
            "failed": n_bad,
        }
        text = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        self.print(f"{len(outcomes)} sources: {text}")

    def _show(self, source: Source, doing: str, fraction: float | None, figures: str) -> None:
        name = Path(source.text).name if source.path else source.text
        if len(name) > _NAME_CHARS:
            # The end of a long name often tells more than its middle.
            half = _NAME_CHARS // 2
            name = f"{name[: _NAME_CHARS - half]}…{name[1 - half :]}"
        text = f"{escape(name.ljust(_NAME_CHARS))} [dim]{doing:<14}[/]"
        if source not in self._bars:
            self._bars[source] = self.progress.add_task(text, total=1.0, figures=figures)
        self.progress.update(
            self._bars[source],
            description=text,
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            figures=figures,
        )

    def _hide(self, source: Source) -> None:
        if source in self._bars:
            self.progress.remove_task(self._bars.pop(source))


class ClipsDisplay(Terminal):
    """A bar that counts clips, and one for each that the server fetches."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self._task = self.progress.add_task("clips", total=total, visible=total > 1)
        self._bars: dict[str, TaskID] = {}

    def advance(self) -> None:
        """One more is done."""
        self.progress.advance(self._task)

    def fetched(self, url: str, n_bytes: int, audio_s: float) -> None:
        """So much of a URL's clip has come."""
        figures = f"{output.size(n_bytes)}, {output.clock(audio_s)} of sound"
        if url not in self._bars:
            text = f"{escape(url[:_NAME_CHARS])} [dim]fetching[/]"
            self._bars[url] = self.progress.add_task(text, total=None, figures=figures)
        self.progress.update(self._bars[url], figures=figures)

    def finished(self, url: str) -> None:
        """A URL's clip needs nothing more."""
        if url in self._bars:
            self.progress.remove_task(self._bars.pop(url))


class FolderDisplay(Terminal):
    """A folder on its way into the catalogue."""

    def __init__(self) -> None:
        super().__init__()
        self._task = self.progress.add_task("", total=None, figures="")

    def show(self, job: Job) -> None:
        """The job has changed."""
        found = job.progress.batch
        doing, fraction, figures = job.state.lower(), None, ""
        if found is not None and not found.listing_done:
            doing, fraction = "comparing", job.progress.fraction or None
            figures = f"{found.listed} files"
        elif found is not None:
            done = found.indexed + found.failed
            total = done + found.queued + found.running + found.retrying
            doing, fraction = "indexing", done / total if total else None
            figures = f"{done} of {total}" if total else ""
        self.progress.update(
            self._task,
            description=f"{escape(job.source)} [dim]{doing}[/]",
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            figures=figures,
        )


class JobDisplay(Terminal):
    """One job on its way."""

    def __init__(self) -> None:
        super().__init__()
        self._task = self.progress.add_task("", total=None, figures="")

    def show(self, job: Job) -> None:
        """The job has changed."""
        doing: str = job.state.lower()
        fraction: float | None = None
        figures = ""
        if job.state is JobState.RUNNING:
            doing, fraction, figures = describe(job)
        elif job.state is JobState.RETRYING and job.failure is not None:
            figures = f"{job.failure.reason}, attempt {job.attempt} of {job.max_attempts}"
        self.progress.update(
            self._task,
            description=f"{escape(job.source)} [dim]{doing}[/]",
            total=None if fraction is None else 1.0,
            completed=fraction or 0.0,
            figures=figures,
        )

"""Channels on their way: a bar for each, and below it one for each video that a worker has."""

from __future__ import annotations

from rich.markup import escape
from rich.progress import TaskID

from soundhash import BatchItem, BatchProgress, Job, JobState, JobStep
from soundhash.cli import _output as output
from soundhash.cli._progress import Terminal

_NAME_CHARS = 36
_MAX_ITEMS = 6
"""Videos shown a channel: more would not fit a screen beside others."""
_DOING = {
    JobStep.FETCH: "fetching",
    JobStep.FINGERPRINT: "fingerprinting",
    JobStep.STORE: "storing",
    JobStep.KEEP: "keeping",
}


def counts_of(job: Job) -> BatchProgress:
    """How the videos of a channel's job stand."""
    if job.batch_result is not None:
        return job.batch_result.counts
    return job.progress.batch or BatchProgress()


def figures(found: BatchProgress) -> str:
    """What a channel's bar says in figures."""
    ended, total = found.indexed + found.failed, total_of(found)
    parts = [f"{ended:,} of {total:,}" if total else f"{found.listed:,} listed"]
    if found.videos_per_minute:
        parts.append(f"{found.videos_per_minute:.1f}/min")
    if found.eta_s is not None and ended < total:
        parts.append(f"{output.length(found.eta_s)} left")
    if found.retrying:
        parts.append(f"{found.retrying:,} to be tried again")
    if found.failed:
        parts.append(f"{found.failed:,} failed")
    return ", ".join(parts)


def total_of(found: BatchProgress) -> int:
    """Videos that the job has to do with, done or not."""
    return found.queued + found.running + found.retrying + found.indexed + found.failed


class ChannelDisplay(Terminal):
    """Any number of channels at once."""

    def __init__(self) -> None:
        super().__init__()
        self._bars: dict[str, TaskID] = {}
        self._items: dict[str, dict[str, TaskID]] = {}

    def show(self, job: Job) -> None:
        """A channel's job has changed."""
        found = counts_of(job)
        total = total_of(found)
        doing = job.state.lower()
        text = figures(found)
        if job.state is JobState.RUNNING or (job.state is JobState.WAITING and total):
            doing = "indexing" if found.listing_done else "listing"
        elif job.state is JobState.RETRYING and job.failure is not None:
            doing, text = "trying again", job.failure.reason
            if job.next_attempt_time is not None:
                text += f" at {output.moment(job.next_attempt_time)}"
        bar = self._bar(job.id)
        self.progress.update(
            bar,
            description=_described(job.source, doing),
            total=float(total) if total and found.listing_done else None,
            completed=float(found.indexed + found.failed),
            figures=text,
        )
        self._show_items(job.id, found.running_items[:_MAX_ITEMS])

    def finished(self, job_id: str) -> None:
        """Nothing more happens to this job."""
        self._show_items(job_id, ())
        if job_id in self._bars:
            self.progress.remove_task(self._bars.pop(job_id))

    def _bar(self, job_id: str) -> TaskID:
        if job_id not in self._bars:
            self._bars[job_id] = self.progress.add_task("", total=None, figures="")
        return self._bars[job_id]

    def _show_items(self, job_id: str, items: tuple[BatchItem, ...]) -> None:
        bars = self._items.setdefault(job_id, {})
        now = {item.job_id for item in items}
        for ended in bars.keys() - now:
            self.progress.remove_task(bars.pop(ended))
        for item in items:
            if item.job_id not in bars:
                bars[item.job_id] = self.progress.add_task("", total=1.0, figures="")
            self.progress.update(
                bars[item.job_id],
                description="  " + _described(item.title, _DOING.get(item.step, "starting"), 2),
                total=1.0 if item.fraction else None,
                completed=item.fraction,
                figures=f"{item.fraction:.0%}" if item.fraction else "",
            )


def _described(name: str, doing: str, indent: int = 0) -> str:
    most = _NAME_CHARS - indent
    if len(name) > most:
        name = name[: most - 1] + "…"
    return f"{escape(name.ljust(most))} [dim]{doing:<14}[/]"

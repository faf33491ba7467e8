"""The client for plain code: questions, and what is indexed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from soundhash import _calls as calls
from soundhash import _convert as convert
from soundhash import _types as t
from soundhash._explanation import Explanation
from soundhash._media import (
    Comparable,
    Media,
    MediaReader,
    Progress,
    comparison_side,
    fingerprint_side,
    read_clip,
)
from soundhash._sync_connection import SyncConnection
from soundhash.v1 import fingerprint_pb2


class SyncAnswers(SyncConnection):
    """Matches, fingerprints, the catalogue, and the server itself."""

    # ---- match ----

    def match(
        self,
        clip: Media,
        *,
        top: int = 0,
        min_confidence: float = 0.0,
        timeout_s: float | None = None,
    ) -> t.MatchResult:
        """Finds the videos that a clip is from; finding none is a normal answer.

        clip: a path, bytes, or a binary file object; at most 32 MiB and 10 minutes. top: most
        videos to return, 1 to 100 (0: the server's 5). min_confidence: 0 to 1, can only raise
        the server's threshold.
        """
        content = read_clip(clip)
        call = calls.match_clip(content, top, min_confidence)
        return self._transport.unary(call, timeout_s)

    def stream(
        self,
        chunks: Iterable[bytes],
        *,
        pcm: t.PcmFormat | None = None,
        top: int = 0,
        min_confidence: float = 0.0,
        stop_after_first: bool = False,
        window_s: float | None = None,
        resume: bool = True,
        timeout_s: float | None = None,
    ) -> Generator[t.StreamEvent, None, None]:
        """Finds videos in audio that is still arriving; yields what is heard as it comes.

        chunks: audio in pieces of any size, taken as fast as the server takes them (in the
        plain client from another thread). pcm: the format of raw audio; None: a container
        that is recognised by its bytes. stop_after_first: end at the first match that is
        certain enough to publish. window_s: how much of the latest audio is looked at
        together, 3 to 12 (None: 10). timeout_s: None for no limit.

        resume: when the connection breaks, go on without losing what was heard, for as long as
        the server waits (StreamOpened.resume_within_s). Up to 16 MiB of audio are kept for that.
        A server that was restarted has forgotten the stream: raw audio begins anew there, with
        up to 30 s from before, and its times go on; media in a container raise NotFound
        (STREAM_NOT_FOUND). A stream whose first call fails is not tried again.

        Closing the iterator ends the stream. What `chunks` raises is raised here.
        """
        course = calls.stream(
            pcm, top, min_confidence, stop_after_first, window_s, resume, timeout_s
        )
        return self._transport.stream(course, chunks)

    def match_url(
        self,
        url: str,
        *,
        start_s: float = 0.0,
        length_s: float | None = None,
        top: int = 0,
        min_confidence: float = 0.0,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> t.MatchResult:
        """Has the server fetch a clip from a URL and finds the videos that it is from.

        url: a media file, or a page of a site that yt-dlp knows; only as much of it is fetched
        as is needed, and nothing is kept. start_s, length_s: the part of it to use (None: a
        minute; at most 10 minutes). options: how to fetch it. top and min_confidence are as in
        `match`. timeout_s: None for no limit. Not tried again.
        """
        request = calls.match_url(url, start_s, length_s, top, min_confidence, options)
        return convert.url_result(self._transport.stream_url(request, timeout_s))

    def stream_url(
        self,
        url: str,
        *,
        start_s: float = 0.0,
        length_s: float | None = None,
        top: int = 0,
        min_confidence: float = 0.0,
        options: t.FetchOptions | None = None,
        timeout_s: float | None = None,
    ) -> Generator[t.UrlEvent, None, None]:
        """As `match_url`, event by event: progress, the matches, one UrlEnd.

        Closing the iterator ends the call.
        """
        request = calls.match_url(url, start_s, length_s, top, min_confidence, options)
        return self._transport.stream_url(request, timeout_s)

    def get_match(self, match_id: str, *, timeout_s: float | None = None) -> t.Match:
        """Returns one past match."""
        return self._transport.unary(calls.get_match(match_id), timeout_s)

    def explain(
        self,
        match_id: str = "",
        *,
        clip: Media | None = None,
        video_id: str = "",
        timeout_s: float | None = None,
    ) -> Explanation:
        """Tells why a match is a match.

        match_id: of a past match. clip: it again, as of `match`, when the server has kept too
        little of it, or not for long enough (CLIP_NEEDED); without match_id the clip's best
        match is explained, or with video_id its best place in that video. Nothing is stored.
        """
        content = b"" if clip is None else read_clip(clip)
        return self._transport.unary(calls.explain(match_id, content, video_id), timeout_s)

    def matches(
        self,
        *,
        video_id: str = "",
        query_id: str = "",
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.Match]:
        """Yields past matches, newest first: of one video, or those of one question."""
        return self._transport.pages(calls.list_matches(video_id, query_id, limit), timeout_s)

    # ---- fingerprints ----

    def compute_fingerprint(
        self,
        source: Media,
        *,
        progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> t.Fingerprint:
        """Fingerprints audio without storing anything; at most 64 MiB and 1 hour.

        source and progress are as in `upload`. timeout_s: None for no limit.
        """
        with MediaReader(source) as reader:
            return self._transport.send_media(calls.compute(), reader, progress, timeout_s)

    def compare(
        self,
        first: Comparable,
        second: Comparable,
        *,
        timeout_s: float | None = None,
    ) -> t.Comparison:
        """Tells whether two recordings share audio, and where the second lies in the first.

        Each is a path, bytes, a binary file object, a Fingerprint, a Video, or a video's id
        (a UUID, also as text). Media above 16 MiB are fingerprinted first.
        """
        sides = [self._side(side, timeout_s) for side in (first, second)]
        return self._transport.unary(calls.compare(sides[0], sides[1]), timeout_s)

    def _side(self, side: Comparable, timeout_s: float | None) -> fingerprint_pb2.FingerprintSource:
        sent = comparison_side(side)
        if isinstance(sent, fingerprint_pb2.FingerprintSource):
            return sent
        return fingerprint_side(self.compute_fingerprint(sent, timeout_s=timeout_s))

    def get_fingerprint(
        self, video_id: str, *, full: bool = False, timeout_s: float | None = None
    ) -> t.Fingerprint:
        """Returns the stored fingerprint of a video. full: with its segments' data."""
        return self._transport.unary(calls.get_fingerprint(video_id, full), timeout_s)

    def fingerprints(
        self, *, limit: int | None = None, timeout_s: float | None = None
    ) -> Iterator[t.Fingerprint]:
        """Yields the stored fingerprints without their segments, newest first."""
        return self._transport.pages(calls.list_fingerprints(limit), timeout_s)

    # ---- catalogue ----

    def get_video(self, video_id: str, *, timeout_s: float | None = None) -> t.Video:
        """Returns one video."""
        return self._transport.unary(calls.get_video(video_id), timeout_s)

    def videos(
        self,
        *,
        channel: str = "",
        external_id: str = "",
        monitor_id: str = "",
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.Video]:
        """Yields videos, newest first: of one channel, or the one with this external id.

        With monitor_id what this monitor has heard, which all other lists leave out.
        """
        call = calls.list_videos(channel, external_id, monitor_id, limit)
        return self._transport.pages(call, timeout_s)

    def search_videos(
        self, query: str, *, limit: int | None = None, timeout_s: float | None = None
    ) -> Iterator[t.Video]:
        """Yields videos that have every word of the query, best first."""
        return self._transport.pages(calls.search_videos(query, limit), timeout_s)

    def update_video(
        self,
        video_id: str,
        *,
        title: str | None = None,
        source_url: str | None = None,
        external_id: str | None = None,
        channel: str | None = None,
        timeout_s: float | None = None,
    ) -> t.Video:
        """Changes what is not None; empty text clears a field (the title cannot be empty)."""
        call = calls.update_video(
            video_id,
            title=title,
            source_url=source_url,
            external_id=external_id,
            channel=channel,
        )
        return self._transport.unary(call, timeout_s)

    def delete_video(self, video_id: str, *, timeout_s: float | None = None) -> None:
        """Removes a video; it is gone from answers when this returns."""
        self._transport.unary(calls.delete_video(video_id), timeout_s)

    def find_duplicates(
        self,
        video_ids: Iterable[str] = (),
        *,
        min_shared_s: float | None = None,
        timeout_s: float | None = None,
    ) -> t.Job:
        """Starts to compare all videos with one another, or these with all, and returns the job.

        The same question gives the same job while that is not finished. min_shared_s: shortest
        passage that is told, 3 to 600 (None: 10). `watch_job` follows it, `duplicates` has what
        it finds.
        """
        call = calls.find_duplicates(video_ids, min_shared_s)
        return self._transport.unary(call, timeout_s)

    def duplicates(
        self,
        job_id: str = "",
        *,
        video_id: str = "",
        kinds: Iterable[t.DuplicateKind | str] = (),
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[t.DuplicatePair]:
        """Yields videos that are alike, the longest shared passages first.

        job_id: of the comparison that has found them; empty for the latest, also while it is at
        work. video_id: only pairs with this one. kinds: only these, as members or by name;
        ValueError for others.
        """
        call = calls.list_duplicates(job_id, video_id, kinds, limit)
        return self._transport.pages(call, timeout_s)

    # ---- the server ----

    def stats(self, *, timeout_s: float | None = None) -> t.Stats:
        """Returns what is stored and what is going on."""
        return self._transport.unary(calls.stats(), timeout_s)

    def index_status(self, *, timeout_s: float | None = None) -> t.IndexStatus:
        """Returns the state of the server's match index."""
        return self._transport.unary(calls.index_status(), timeout_s)

    def compact_index(self, *, timeout_s: float | None = None) -> t.IndexStatus:
        """Merges the index into one volume on disk; matching goes on meanwhile."""
        return self._transport.unary(calls.compact_index(), timeout_s)

    def health(self, service: str = "", *, timeout_s: float | None = None) -> t.Health:
        """Tells whether the server, or one service ("soundhash.v1.MatchService"), answers."""
        return self._transport.unary(calls.health(service), timeout_s)

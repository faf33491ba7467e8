"""What scanned folders held when they were last looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from soundhash_server.model import JobState
from soundhash_server.sources import sha256_key
from soundhash_server.store.pool import Pool, connection


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file of a folder. ``content_sha256``: of its bytes; empty for what is no media."""

    path: str
    """Below the folder, as `paths.path_to_text` writes it."""
    size_bytes: int
    mtime_ns: int
    content_sha256: str


@dataclass(frozen=True, slots=True)
class ContentState:
    """How the catalogue stands to some bytes."""

    indexed: bool
    """Whether there is a video with today's fingerprints."""
    job_id: UUID | None
    job_state: JobState | None
    job_path: str
    """The file that the job reads; empty for an upload."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """What the catalogue has of bytes that no folder has any more, and that came from nowhere
    else. ``job_id``: of a job that is not finished."""

    video_id: UUID | None
    job_id: UUID | None


class FolderFiles:
    """Every method raises PlatformError DATABASE_UNAVAILABLE when the database is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of(self, folder: str) -> dict[str, FolderFile]:
        """All files of a folder, by their path."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                "SELECT path, size_bytes, mtime_ns, content_sha256 FROM folder_files"
                " WHERE folder = $1",
                folder,
            )
        return {row["path"]: FolderFile(**row) for row in rows}

    async def put(self, folder: str, files: Sequence[FolderFile]) -> None:
        """Remembers files. Bytes that came into the catalogue by another way before they were
        first seen in a folder are remembered as shared."""
        async with connection(self._pool) as held:
            await held.execute(
                """INSERT INTO folder_files AS f
                    (folder, path, size_bytes, mtime_ns, content_sha256, shared)
                SELECT $1, i.path, i.size_bytes, i.mtime_ns, i.digest, i.digest <> '' AND (
                    EXISTS (SELECT FROM folder_files AS o
                        WHERE o.content_sha256 = i.digest AND o.shared)
                    OR (
                        NOT EXISTS (SELECT FROM folder_files AS o
                            WHERE o.content_sha256 = i.digest)
                        AND (
                            EXISTS (SELECT FROM videos AS v WHERE v.content_sha256 = i.digest)
                            OR EXISTS (SELECT FROM processing_jobs AS j
                                WHERE j.dedupe_key = 'sha256:' || i.digest
                                    AND coalesce(j.parameters ->> 'path', '') = ''
                                    AND j.state IN ('QUEUED', 'RUNNING', 'RETRYING'))
                        )
                    )
                )
                FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[])
                    AS i (path, size_bytes, mtime_ns, digest)
                ON CONFLICT (folder, path) DO UPDATE SET
                    size_bytes = excluded.size_bytes,
                    mtime_ns = excluded.mtime_ns,
                    content_sha256 = excluded.content_sha256,
                    shared = excluded.shared
                        OR (f.shared AND f.content_sha256 = excluded.content_sha256)""",
                folder,
                [file.path for file in files],
                [file.size_bytes for file in files],
                [file.mtime_ns for file in files],
                [file.content_sha256 for file in files],
            )

    async def share(self, content_sha256: str) -> None:
        """These bytes have come by another way too: they stay when their file goes."""
        async with connection(self._pool) as held:
            await held.execute(
                "UPDATE folder_files SET shared = true WHERE content_sha256 = $1 AND NOT shared",
                content_sha256,
            )

    async def drop(self, folder: str, paths: Sequence[str]) -> None:
        """Forgets files."""
        async with connection(self._pool) as held:
            await held.execute(
                "DELETE FROM folder_files WHERE folder = $1 AND path = ANY($2)", folder, paths
            )

    async def states(
        self, contents: Sequence[str], params_digest: str
    ) -> Mapping[str, ContentState]:
        """How the catalogue stands to each of these bytes, by their SHA-256."""
        async with connection(self._pool) as held:
            rows = await held.fetch(
                """SELECT i.digest, v.id IS NOT NULL AS indexed, j.id AS job_id, j.state,
                    coalesce(j.parameters ->> 'path', '') AS path
                FROM unnest($1::text[], $2::text[]) AS i (digest, key)
                LEFT JOIN videos AS v ON v.content_sha256 = i.digest AND v.params_digest = $3
                LEFT JOIN processing_jobs AS j ON j.dedupe_key = i.key""",
                contents,
                [sha256_key(digest) for digest in contents],
                params_digest,
            )
        return {
            row["digest"]: ContentState(
                row["indexed"],
                row["job_id"],
                None if row["state"] is None else JobState(row["state"]),
                row["path"],
            )
            for row in rows
        }

    async def leftover(
        self, folder: str, paths: Sequence[str], content_sha256: str
    ) -> Leftover | None:
        """What is left in the catalogue of bytes that these files had; None when something else
        still has them: another file of any folder, an upload, or a source on the network.

        The same files seen as some of another folder (inside or around this one) do not count.
        """
        async with connection(self._pool) as held:
            row = await held.fetchrow(
                """SELECT
                    (SELECT v.id FROM videos AS v WHERE v.content_sha256 = $3) AS video_id,
                    (SELECT j.id FROM processing_jobs AS j
                        WHERE j.dedupe_key = $4 AND j.parameters ->> 'path' <> ''
                            AND j.state IN ('QUEUED', 'RUNNING', 'RETRYING')) AS job_id
                WHERE NOT EXISTS (SELECT FROM folder_files AS f
                        WHERE f.content_sha256 = $3
                            AND (f.shared OR rtrim(f.folder, '/') || '/' || f.path <> ALL (
                                SELECT rtrim($1, '/') || '/' || p.path
                                FROM unnest($2::text[]) AS p (path))))
                    AND NOT EXISTS (SELECT FROM videos AS v WHERE v.content_sha256 = $3
                        AND (v.source_key IS NOT NULL OR v.media_id <> ''))""",
                folder,
                paths,
                content_sha256,
                sha256_key(content_sha256),
            )
        return None if row is None else Leftover(row["video_id"], row["job_id"])

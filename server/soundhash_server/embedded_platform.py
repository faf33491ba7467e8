"""The embedded database and queue of one data folder, as settings ask for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from soundhash_server.embedded import Daemon, EmbeddedError
from soundhash_server.embedded_postgres import Postgres
from soundhash_server.embedded_valkey import Valkey
from soundhash_server.locks import FileLock
from soundhash_server.settings import Settings, SettingsError


class AlreadyRunningError(SettingsError):
    """Another platform runs on the same data folder."""


def data_lock(settings: Settings) -> FileLock:
    """The lock that whoever runs embedded services on this data folder holds."""
    return FileLock(settings.data_dir / "up.lock")


def take_data_lock(settings: Settings) -> FileLock:
    """Raises AlreadyRunningError; SettingsError for a folder that cannot be used."""
    lock = data_lock(settings)
    try:
        taken = lock.try_acquire()
    except OSError as error:
        raise SettingsError(
            f"The data folder {settings.data_dir} cannot be used ({error.strerror}): choose "
            "another with --data-dir or SOUNDHASH_DATA_DIR, or correct its rights."
        ) from None
    if not taken:
        raise AlreadyRunningError(
            f"SoundHash already runs on {settings.data_dir} (process {lock.holder()}): "
            "use that one, end it, or choose another --data-dir."
        )
    return lock


class Embedded:
    """What of database and queue the settings leave to us. Hold the data lock to start it."""

    def __init__(self, settings: Settings) -> None:
        self.postgres = None if settings.database_url else Postgres(settings.data_dir)
        self.valkey = None if settings.redis_url else Valkey(settings.data_dir)
        self._settings = settings

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        return tuple(d for d in (self.postgres, self.valkey) if d is not None)

    @property
    def settings(self) -> Settings:
        """The settings with the URLs of what is embedded; after a first start."""
        given = self._settings
        return dataclasses.replace(
            given,
            database_url=self.postgres.url if self.postgres else given.database_url,
            redis_url=self.valkey.url if self.valkey else given.redis_url,
        )

    def stop(self) -> None:
        """Stops whatever of it is running."""
        for daemon in self.daemons:
            daemon.stop()


def attach(settings: Settings) -> Settings:
    """The settings with the URLs of embedded services that `soundhash up` runs on this folder.

    Raises SettingsError when one is needed and does not run.
    """
    embedded = Embedded(settings)
    for daemon in embedded.daemons:
        if daemon.left_behind() is None:
            raise SettingsError(
                f"No {daemon.name} is set up and none runs on {settings.data_dir}: start the "
                "whole platform with `soundhash up`, or set SOUNDHASH_DATABASE_URL and "
                "SOUNDHASH_REDIS_URL."
            )
    try:
        return embedded.settings
    except EmbeddedError as error:
        raise SettingsError(str(error)) from None


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URL of the database that the settings name: the given one, the embedded one that
    runs, or the embedded one started for as long as this lasts.

    Raises SettingsError, EmbeddedError.
    """
    if settings.database_url:
        yield settings.database_url
        return
    server = Postgres(settings.data_dir)
    if data_lock(settings).holder() is not None and server.left_behind() is not None:
        yield server.url
        return
    with take_data_lock(settings):
        server.start()
        try:
            yield server.url
        finally:
            server.stop()

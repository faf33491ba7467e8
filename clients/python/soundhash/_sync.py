"""The client for plain code."""

from soundhash._sync_answers import SyncAnswers
from soundhash._sync_monitors import SyncMonitors
from soundhash._sync_sources import SyncSources


class Client(SyncSources, SyncMonitors, SyncAnswers):
    """A connection to a SoundHash server; use it as a context manager, or close it.

    address: "host:port" or "unix:path"; by default SOUNDHASH_ADDRESS, else 127.0.0.1:50051.
    timeout_s: limit of a call that answers once, with its retries. tls: None for plain text.
    token: sent as a bearer token. max_retries: of calls that are safe to repeat.

    Any number of threads (AsyncClient: of tasks of one event loop) may use it. Nothing is sent
    until the first call. Every failure is a SoundHashError; a file that cannot be read is an
    OSError as usual.
    `timeout_s` of a method overrides the client's; where nothing else is said, None takes it.
    """

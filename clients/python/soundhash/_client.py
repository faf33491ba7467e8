"""The client for asyncio."""

from soundhash._async_answers import AsyncAnswers
from soundhash._async_monitors import AsyncMonitors
from soundhash._async_sources import AsyncSources


class AsyncClient(AsyncSources, AsyncMonitors, AsyncAnswers):
    """A connection to a SoundHash server; use it as a context manager, or close it.

    address: "host:port" or "unix:path"; by default SOUNDHASH_ADDRESS, else 127.0.0.1:50051.
    timeout_s: limit of a call that answers once, with its retries. tls: None for plain text.
    token: sent as a bearer token. max_retries: of calls that are safe to repeat.

    Any number of threads (AsyncClient: of tasks of one event loop) may use it. Nothing is sent
    until the first call. Every failure is a SoundHashError; a file that cannot be read is an
    OSError as usual.
    `timeout_s` of a method overrides the client's; where nothing else is said, None takes it.
    """

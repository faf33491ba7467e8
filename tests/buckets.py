"""S3 for tests: moto's server on loopback, reached through the usual variables."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from moto.server import ThreadedMotoServer


def s3_variables(server: ThreadedMotoServer) -> dict[str, str]:
    """The environment that leads to this server."""
    host, port = server.get_host_and_port()
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }


@contextlib.contextmanager
def s3_environment(server: ThreadedMotoServer) -> Iterator[str]:
    """Sets it; gives the endpoint."""
    variables = s3_variables(server)
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield variables["AWS_ENDPOINT_URL"]
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

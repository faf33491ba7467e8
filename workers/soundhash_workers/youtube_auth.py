"""The OAuth token of the YouTube Data API: got once in a browser, kept in a file, refreshed.

``python -m soundhash_workers.youtube_auth`` is what `soundhash auth youtube` becomes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.auth.exceptions import GoogleAuthError
from google.oauth2.credentials import Credentials

from soundhash_server.settings import Settings, SettingsError

SCOPES = ("https://www.googleapis.com/auth/youtube.readonly",)
TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_NEEDED = ("refresh_token", "client_id", "client_secret")


class TokenError(Exception):
    """The stored token cannot be used; the message says why, without any secret."""


def load_token(path: Path) -> Credentials:
    """The stored token. Raises TokenError."""
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or not all(values.get(name) for name in _NEEDED):
            raise ValueError
        expiry = None
        if values.get("expiry"):
            # The library wants UTC without saying so.
            moment = datetime.fromisoformat(str(values["expiry"]))
            expiry = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        # Its own reader would leave out the address that the client secrets have named.
        return Credentials(
            token=values.get("token"),
            refresh_token=values["refresh_token"],
            token_uri=values.get("token_uri") or TOKEN_URI,
            client_id=values["client_id"],
            client_secret=values["client_secret"],
            scopes=list(SCOPES),
            expiry=expiry,
        )
    except FileNotFoundError:
        raise TokenError("There is no token.") from None
    except OSError as error:
        raise TokenError(f"The token's file cannot be read ({error.strerror}).") from None
    except ValueError:
        raise TokenError("The token's file is damaged.") from None


def save_token(path: Path, credentials: Credentials) -> None:
    """Stores a token for its owner's eyes only; the file is whole at any moment. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes files of mode 0600.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(credentials.to_json())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def status(settings: Settings) -> dict[str, Any]:
    """How the YouTube Data API is reached; no secret is in it."""
    path = settings.youtube_token_path
    found: dict[str, Any] = {
        "api_key": bool(settings.youtube_api_key),
        "token": "none",
        "token_file": str(path),
        "expire_time": None,
    }
    if path.exists():
        try:
            token = load_token(path)
        except TokenError as error:
            found["token"] = "unusable"  # noqa: S105 - no secret
            found["problem"] = str(error)
        else:
            found["token"] = "stored"  # noqa: S105 - no secret
            expiry = token.expiry
            found["expire_time"] = None if expiry is None else f"{expiry.isoformat()}Z"
    found["configured"] = found["api_key"] or found["token"] == "stored"  # noqa: S105
    return found


def authorise(client_secrets: Path, settings: Settings, *, browser: bool, port: int) -> None:
    """Asks for consent in a browser and stores the token.

    Raises OSError, ValueError (no client secrets of a desktop application), GoogleAuthError and
    what oauthlib raises when consent is refused.
    """
    # Slow to load, and needed here alone.
    from google_auth_oauthlib.flow import InstalledAppFlow  # noqa: PLC0415

    flow = InstalledAppFlow.from_client_secrets_file(str(client_secrets), scopes=list(SCOPES))
    credentials = flow.run_local_server(
        host="127.0.0.1",
        bind_addr="127.0.0.1",
        port=port,
        open_browser=browser,
        authorization_prompt_message="Open this address in a browser:\n{url}",
        success_message="SoundHash may read YouTube now; this page can be closed.",
        # Always with a refresh token, also when consent was given before.
        access_type="offline",
        prompt="consent",
    )
    save_token(settings.youtube_token_path, credentials)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="soundhash auth youtube")
    parser.add_argument("--client-secrets", type=Path)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--status", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args(arguments)
    try:
        settings = Settings.from_env(data_dir=given.data_dir)
        if given.client_secrets is not None:
            authorise(given.client_secrets, settings, browser=not given.no_browser, port=given.port)
        elif not given.status:
            return _fail(
                "give --client-secrets FILE (a desktop client of the Google Cloud console)"
            )
    except SettingsError as error:
        return _fail(str(error))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _fail(f"the client secrets or the token's file cannot be used: {why}")
    except GoogleAuthError as error:
        return _fail(f"Google refuses ({type(error).__name__})")
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # of oauthlib, whose texts may hold codes
        return _fail(f"consent was not given ({type(error).__name__})")
    _tell(status(settings), as_json=given.json)
    return 0


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))  # noqa: T201
        return
    lines = [
        ("API key", "set" if found["api_key"] else "not set"),
        ("token", found["token"] + (f": {found['problem']}" if "problem" in found else "")),
        ("token file", found["token_file"]),
        (
            "channels",
            "listed by the YouTube Data API" if found["configured"] else "listed by yt-dlp",
        ),
    ]
    for name, value in lines:
        print(f"{name:<12}{value}")  # noqa: T201


def _fail(text: str) -> int:
    sys.stderr.write(f"error: {text}\n")
    return 1


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())

"""Settings: what is read, what is refused and how."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from soundhash_server.settings import DEFAULT_DATA_DIR, Settings, SettingsError


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert settings.data_dir == DEFAULT_DATA_DIR
    assert not settings.allow_private_urls
    assert settings.effective_cpu_threads >= 1
    assert settings.effective_worker_concurrency >= 1


def test_every_field_is_documented() -> None:
    for spec in dataclasses.fields(Settings):
        assert spec.metadata["doc"].endswith("."), spec.name


def test_variables_are_read_by_kind() -> None:
    settings = Settings.from_env(
        {
            "SOUNDHASH_PORT": "0",
            "SOUNDHASH_MAX_CLIP_S": "12.5",
            "SOUNDHASH_ALLOW_PRIVATE_URLS": "Yes",
            "SOUNDHASH_DATA_DIR": "~/x",
            "SOUNDHASH_DATABASE_URL": "postgresql://h/d",
            "SOUNDHASH_HOST": "",
            "OTHER": "ignored",
        }
    )
    assert (settings.port, settings.max_clip_s, settings.allow_private_urls) == (0, 12.5, True)
    assert settings.data_dir == Path.home() / "x"
    assert settings.uploads_dir == settings.data_dir / "uploads"
    assert settings.host == "127.0.0.1", "an empty variable is none"


def test_overrides_win_and_none_is_no_override() -> None:
    env = {"SOUNDHASH_PORT": "1", "SOUNDHASH_HOST": "h"}
    settings = Settings.from_env(env, port=2, host=None)
    assert (settings.port, settings.host) == (2, "h")


@pytest.mark.parametrize(
    ("variable", "value", "must_be"),
    [
        ("SOUNDHASH_PORT", "http", "a whole number"),
        ("SOUNDHASH_PORT", "1.5", "a whole number"),
        ("SOUNDHASH_PORT", "-1", "at least 0"),
        ("SOUNDHASH_MAX_CLIP_S", "nan", "a number"),
        ("SOUNDHASH_MAX_CLIP_S", "long", "a number"),
        ("SOUNDHASH_ALLOW_PRIVATE_URLS", "maybe", "1 or 0"),
        ("SOUNDHASH_DATABASE_POOL_SIZE", "1", "at least 2"),
    ],
)
def test_unusable_values_name_the_variable(variable: str, value: str, must_be: str) -> None:
    with pytest.raises(SettingsError, match=must_be) as refused:
        Settings.from_env({variable: value})
    assert variable in str(refused.value)


def test_as_env_gives_the_same_settings_back() -> None:
    settings = Settings(
        data_dir=Path("/a b/ü"),
        port=0,
        allow_private_urls=True,
        retry_cap_s=0.25,
        max_upload_bytes=1 << 40,
        redis_url="redis://x",
    )
    assert Settings.from_env(settings.as_env()) == settings
    assert Settings.from_env(Settings().as_env()) == Settings()

"""The engine's public names are what they say, whatever was imported before."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import soundhash_engine


def test_no_module_hides_a_public_function() -> None:
    modules = [name for _, name, _ in pkgutil.iter_modules(soundhash_engine.__path__)]
    for name in modules:
        importlib.import_module(f"soundhash_engine.{name}")
    for name in soundhash_engine.__all__:
        assert not inspect.ismodule(getattr(soundhash_engine, name)), name

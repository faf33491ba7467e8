"""The Kubernetes manifests are valid and speak of things that exist."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from soundhash_server.rpc.health import LIVENESS, NEEDS
from soundhash_server.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s/base"
OLDEST_KUBERNETES = "1.30"


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.name, document)
        for path in sorted(BASE.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] != "Kustomization"
    ]


@pytest.mark.parametrize(("name", "document"), documents())
def test_manifest_fits_the_schema(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, OLDEST_KUBERNETES, strict=True)


def test_kustomization_lists_every_manifest() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(
        p.name for p in BASE.glob("*.yaml") if p.name != "kustomization.yaml"
    )


def test_config_names_only_settings_that_exist() -> None:
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}
    config = next(d for _, d in documents() if d["kind"] == "ConfigMap")
    assert set(config["data"]) <= known


def test_compose_names_only_settings_that_exist() -> None:
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    for service in compose["services"].values():
        named = {key for key in service.get("environment", {}) if key.startswith(PREFIX)}
        assert named <= known


def test_probes_ask_for_health_that_the_server_tells() -> None:
    server = next(d for _, d in documents() if d["metadata"]["name"] == "soundhash-server")
    container = server["spec"]["template"]["spec"]["containers"][0]
    asked = {
        kind: container[kind]["grpc"].get("service", "")
        for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    # A database that is away makes a server unready; it is no reason to restart it.
    assert asked == {"startupProbe": LIVENESS, "livenessProbe": LIVENESS, "readinessProbe": ""}
    assert "" in NEEDS

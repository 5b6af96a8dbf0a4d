"""The chart's roles are the committed table of rights, and hold nothing of what is denied."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart import generate
from tests.support.chart import of_kind, pod_templates

RIGHTS: dict[str, Any] = yaml.safe_load((Path(generate.HERE) / "rights.yaml").read_text())
SERVICES = tuple(RIGHTS["allowed"])


def rendered() -> dict[str, dict[str, dict[str, list[str]]]]:
    """Of each service account: where (a namespace, or the cluster) -> resource -> verbs, through roles and bindings."""
    found: dict[str, Any] = {name: defaultdict(lambda: defaultdict(set)) for name in SERVICES}
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in of_kind(kind).values():
            role = of_kind(binding["roleRef"]["kind"])[binding["roleRef"]["name"]]
            where = binding["metadata"]["namespace"] if kind == "RoleBinding" else "cluster"
            for subject in binding["subjects"]:
                assert subject["kind"] == "ServiceAccount"
                assert subject["namespace"] == "gpudev-system"
                for rule in role["rules"]:
                    add(found[subject["name"].removeprefix("gpudev-")][where], rule)
    return {
        name: {place: {key: sorted(verbs) for key, verbs in rules.items()} for place, rules in places.items()}
        for name, places in found.items()
    }


def add(rights: dict[str, set[str]], rule: dict[str, Any]) -> None:
    assert set(rule) == {"apiGroups", "resources", "verbs"}
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            rights[f"{resource}.{group}" if group else resource].update(rule["verbs"])


def test_rendered_rights_are_the_table() -> None:
    assert rendered() == RIGHTS["allowed"]


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_denied_is_allowed(service: str) -> None:
    given = rendered()[service]
    for place, rights in RIGHTS["denied"].items():
        for resource, verbs in rights.items():
            held = {*given.get(place, {}).get(resource, ()), *given.get("cluster", {}).get(resource, ())}
            assert not held & set(verbs), (place, resource)


def test_no_right_is_for_everything() -> None:
    for places in rendered().values():
        for rights in places.values():
            for resource, verbs in rights.items():
                assert "*" not in {resource, *verbs}


def test_every_service_has_an_account_of_its_own() -> None:
    accounts = {
        name: template["spec"].get("serviceAccountName") for name, template in pod_templates() if "Deployment" in name
    }
    assert accounts == {f"Deployment gpudev-{name}": f"gpudev-{name}" for name in SERVICES}
    for account in of_kind("ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False

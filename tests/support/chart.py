"""The chart as Helm renders it, as objects."""

import functools
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import yaml

from deploy.chart import generate

Object = dict[str, Any]
VERSIONS = ("1.20", *(f"1.{minor}" for minor in range(25, 38)))
"""Of Kubernetes: that of the test cluster, and those that are supported somewhere."""


def objects(*arguments: str, major: int = 4, version: str = "1.37", **values: Any) -> list[Object]:
    """What the chart makes of these values."""
    return list(_objects(arguments, major, version, json.dumps(values)))


@functools.cache
def _objects(arguments: tuple[str, ...], major: int, version: str, values: str) -> list[Object]:
    text = generate.render(
        "--kube-version", f"{version}.0", *arguments, major=major, values=json.loads(values) if values != "{}" else None
    )
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def refusal(values: Object, major: int = 4) -> str:
    """Why Helm refuses these values."""
    try:
        generate.render(major=major, values=values)
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    raise AssertionError(f"Helm {major} takes {values}")


def of_kind(kind: str, made: list[Object] | None = None) -> dict[str, Object]:
    """The objects of a kind by their name, in their namespace where that is not the control plane's."""
    found = [one for one in (objects() if made is None else made) if one["kind"] == kind]
    return {one["metadata"]["name"]: one for one in found}


def pod_templates(made: list[Object] | None = None) -> Iterator[tuple[str, Object]]:
    """Name and pod of everything that makes pods: `metadata` and `spec` of each."""
    for one in objects() if made is None else made:
        if one["kind"] == "Pod":
            yield f"Pod {one['metadata']['name']}", one
        elif "template" in one.get("spec", {}):
            yield f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]


def environment(service: str, made: list[Object]) -> dict[str, Any]:
    """Variables of a service: their values, or where they come from."""
    (container,) = of_kind("Deployment", made)[f"gpudev-{service}"]["spec"]["template"]["spec"]["containers"]
    given = container["env"]
    assert len({one["name"] for one in given}) == len(given), "a variable is said twice"
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in given}

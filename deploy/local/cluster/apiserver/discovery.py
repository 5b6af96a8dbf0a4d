"""What a client reads to learn what is served: groups, resources, version, health."""

import platform
from collections.abc import Iterable

import msgspec

from deploy.local.cluster.apiserver.http import Response
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.resources import API_VERSIONS, RESOURCES, Resource, path_of

VERSION = "v1.34.0"
_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_POLICY_VERSIONS = ("v1", "v1beta1")

# subresources that are no view of the whole object: (name, kind, group of the kind, verbs)
_POD_SUBRESOURCES = (
    ("pods/binding", "Binding", "", ["create"]),
    ("pods/eviction", "Eviction", "policy", ["create"]),
    ("pods/log", "Pod", "", ["get"]),
)


def public(path: str) -> Response:
    """Health and version, which need no token."""
    if path == "/version":
        return _json(_version())
    return Response(body=b"ok", content_type="text/plain; charset=utf-8")


def document(path: str, accept: str) -> Response | None:
    """A discovery document, or None when the path is none."""
    if path == "/openapi/v2":
        return _openapi(accept)
    value = _DOCUMENTS.get(path)
    return None if value is None else _json(value)


def _openapi(accept: str) -> Response:
    if _PROTOBUF in accept.replace(" ", ""):
        # an empty message is a valid document without definitions: kubectl then skips its own validation
        return Response(content_type="application/octet-stream")
    info = {"title": "Kubernetes", "version": VERSION}
    return _json({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}})


def _json(value: Object) -> Response:
    return Response(body=msgspec.json.encode(value))


def _version() -> Object:
    major, minor, _ = VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{VERSION}+gpudev",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": f"{platform.system().lower()}/amd64",
    }


def _resources(version: str) -> Object:
    entries = []
    for resource in RESOURCES.values():
        if resource.api_version == version:
            entries.append(_entry(resource))
            entries += [_subentry(resource, name) for name in resource.subresources]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": entries}


def _core_resources() -> Object:
    found = _resources("v1")
    entries = found["resources"]
    for name, kind, group, verbs in _POD_SUBRESOURCES:
        entry: Object = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
        entries.append({**entry, "group": group, "version": "v1"} if group else entry)
    return found


def _entry(resource: Resource) -> Object:
    entry: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    return entry


def _subentry(resource: Resource, name: str) -> Object:
    return {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["get", "patch", "update"],
    }


def _group(name: str, versions: Iterable[str]) -> Object:
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


def _documents() -> dict[str, Object]:
    served = [version.partition("/") for version in API_VERSIONS if "/" in version]
    groups = [_group("policy", _POLICY_VERSIONS), *(_group(name, [version]) for name, _, version in served)]
    found: dict[str, Object] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/api/v1": _core_resources(),
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        **{f"/apis/{group['name']}": {"kind": "APIGroup", "apiVersion": "v1", **group} for group in groups},
        **{path_of(version): {"apiVersion": "v1", **_resources(version)} for version in API_VERSIONS if "/" in version},
    }
    for version in _POLICY_VERSIONS:
        found[f"/apis/policy/{version}"] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"policy/{version}",
            "resources": [],
        }
    return found


_DOCUMENTS = _documents()

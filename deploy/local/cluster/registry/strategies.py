"""What is peculiar to a kind when it is created, updated or deleted."""

import base64
import binascii
from typing import Any

from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.scheduler.requests import quality_of_service

_PERMANENT_NAMESPACES = {"default", "kube-system", "kube-public"}
_NOT_READY_TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_WITH_STATUS = {"pods", "nodes", "namespaces", "services", "persistentvolumes", "persistentvolumeclaims", "ingresses"}


def prepare_create(resource: str, value: Object) -> None:
    """Fixes the fields that a client does not decide; raises BadRequest for undecodable secrets."""
    match resource:
        case "pods":
            value["status"] = {"phase": "Pending", "qosClass": quality_of_service(value.get("spec", {}))}
        case "namespaces":
            value["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = value["metadata"].get(
                "name", ""
            )
            value["status"] = {"phase": "Active"}
        case "services" | "persistentvolumes" | "persistentvolumeclaims" | "ingresses":
            value.pop("status", None)
        case "nodes":
            # as the TaintNodesByCondition admission plugin: until the node lifecycle controller sees it Ready
            taints = value.setdefault("spec", {}).setdefault("taints", [])
            if _NOT_READY_TAINT not in taints:
                taints.append(dict(_NOT_READY_TAINT))
        case "secrets":
            _fold_string_data(value)


def prepare_update(resource: str, subresource: str, new: Object, old: Object) -> Object:
    """Takes from `new` only what this request may change; the rest comes from `old`."""
    if subresource == "status":
        kept = {key: value for key, value in old.items() if key not in {"status", "metadata"}}
        new["metadata"]["ownerReferences"] = old["metadata"].get("ownerReferences", [])
        _drop_empty(new["metadata"], "ownerReferences")
        return {**kept, "metadata": new["metadata"], "status": new.get("status", {})}
    if subresource == "finalize":
        finalizers = new.get("spec", {}).get("finalizers", [])
        return {**old, "metadata": new["metadata"], "spec": {**old["spec"], "finalizers": finalizers}}
    if resource in _WITH_STATUS:
        new["status"] = old.get("status", {})
    if resource == "namespaces":
        new["spec"] = old["spec"]
    if resource == "services" and not new.get("spec", {}).get("clusterIP") and "clusterIP" in old["spec"]:
        new.setdefault("spec", {})["clusterIP"] = old["spec"]["clusterIP"]
    if resource == "secrets":
        _fold_string_data(new)
        new.setdefault("type", old.get("type", "Opaque"))
    if "deletionTimestamp" in old["metadata"]:
        _no_new_finalizers(new, old)
    return new


def check_delete(resource: str, value: Object) -> None:
    """Raises Forbidden for what can never be deleted."""
    name = value["metadata"]["name"]
    if resource == "namespaces" and name in _PERMANENT_NAMESPACES:
        raise errors.forbidden(resource, name, "this namespace may not be deleted")


def _fold_string_data(value: Object) -> None:
    data: dict[str, Any] = value.get("data") or {}
    for key, text in data.items():
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise errors.bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in "{key}"'
            ) from None
    for key, text in (value.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(text.encode()).decode()
    if data:
        value["data"] = data


def _no_new_finalizers(new: Object, old: Object) -> None:
    added = set(new["metadata"].get("finalizers", [])) - set(old["metadata"].get("finalizers", []))
    if added:
        causes = errors.Causes()
        detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
        causes.forbidden("metadata.finalizers", detail)
        raise errors.invalid(new["kind"], new["metadata"]["name"], causes.found)


def _drop_empty(value: Object, field: str) -> None:
    if not value.get(field):
        value.pop(field, None)

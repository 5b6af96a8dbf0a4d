"""A stack on a real cluster whose node runs containers, with the rights of the chart's roles and no others.

The cluster has one node, labelled as a p5.48xlarge with 8 GPUs, which holds the tools image, `local/debian:bookworm`
(with python3) and `local/busybox:static` (a static busybox as /bin/sh, nothing else).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config, utils

from tests.support.stack import LocalStack, running_stack

INSTALLATION = Path(__file__).parents[2] / "deploy" / "kubernetes" / "install.yaml"
NAMESPACE = "gpudev"
ACCOUNT = "gpudev-stack"


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a service account that may do what the two services may together."""
    given = needed("GPUDEV_KUBECONFIG", "the kubeconfig of a cluster whose nodes run containers")
    api = config.new_client_from_config(given)
    for document in [*roles(), *bindings()]:
        make(api, document)
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=7200))
    token = client.CoreV1Api(api).create_namespaced_service_account_token(ACCOUNT, NAMESPACE, request).status.token
    content: dict[str, Any] = yaml.safe_load(Path(given).read_text())
    content["users"] = [{"name": content["users"][0]["name"], "user": {"token": token}}]
    written = tmp_path_factory.mktemp("cluster") / "kubeconfig"
    written.write_text(yaml.safe_dump(content))
    return written


@pytest.fixture(scope="session")
def stack(kubeconfig: Path) -> Iterator[LocalStack]:
    settings = {
        "GPUDEV_KUBECONFIG": str(kubeconfig),
        "GPUDEV_TOOLS_IMAGE": needed("GPUDEV_TOOLS_IMAGE", "the name of the tools image on the cluster's node"),
        "GPUDEV_MEMORY_GIB_PER_GPU": "2",
        "GPUDEV_SHM_GIB_PER_GPU": "1",
        "GPUDEV_IMAGE_FAULT_SECONDS": "5",
        "GPUDEV_GRACE_SECONDS": "15",
    }
    with running_stack(**settings) as running:
        yield running


def needed(name: str, what: str) -> str:
    """A variable without which there is nothing to test."""
    value = os.environ.get(name)
    if not value:
        raise pytest.UsageError(f"Set {name} to {what}")
    return value


def make(api: client.ApiClient, document: dict[str, Any]) -> None:
    """Make an object unless an earlier run made it."""
    try:
        utils.create_from_dict(api, document)
    except utils.FailToCreateError as error:
        if any(one.status != 409 for one in error.api_exceptions):
            raise


def roles() -> Iterator[dict[str, Any]]:
    """What the services may do in a cluster, and the namespace of the jobs."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for document in yaml.safe_load_all(INSTALLATION.read_text()):
        if document["kind"] in {"Role", "ClusterRole"}:
            yield document


def bindings() -> list[dict[str, Any]]:
    """The stack has one kubeconfig for both services, and looks whether its namespace is there."""
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    group = "rbac.authorization.k8s.io"
    looks = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": {"name": ACCOUNT, "namespace": NAMESPACE},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}}
    roles = (
        ("Role", ACCOUNT),
        ("Role", "gpudev-jobs"),
        ("ClusterRole", "gpudev-jobs"),
        ("ClusterRole", "gpudev-capacity"),
    )
    bound = [
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": f"{ACCOUNT}-{name}"} | ({"namespace": NAMESPACE} if kind == "Role" else {}),
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [subject],
        }
        for kind, name in roles
    ]
    return [account, looks, *bound]

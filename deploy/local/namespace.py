"""Make the stack's namespace in a cluster: `python -m deploy.local.namespace --kubeconfig PATH --name NAME`.

A process of its own, since the Kubernetes client would stay in the supervisor's memory for nothing.
"""

import argparse

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

_FORBIDDEN, _CONFLICT = 403, 409
_TIMEOUT_SECONDS = 10


def ensure_namespace(kubeconfig: str, name: str) -> None:
    """Create the namespace unless it exists. Blocks.

    Where it exists, no right to make one is needed.

    Raises:
        ApiException: the cluster refuses.
    """
    config.load_kube_config(config_file=kubeconfig)  # type: ignore[no-untyped-call]
    api = client.CoreV1Api()
    body = client.V1Namespace(metadata=client.V1ObjectMeta(name=name))
    try:
        api.create_namespace(body, _request_timeout=_TIMEOUT_SECONDS)
    except ApiException as error:
        if error.status == _FORBIDDEN:
            api.read_namespace(name, _request_timeout=_TIMEOUT_SECONDS)
        elif error.status != _CONFLICT:
            raise


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.namespace", description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    ensure_namespace(arguments.kubeconfig, arguments.name)


if __name__ == "__main__":
    main()

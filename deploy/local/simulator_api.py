"""The simulator's API as the stack itself asks it.

Not with the Kubernetes client, which takes a third of a second to load and 20 MB for as long as the stack runs.
"""

import base64
import json
import ssl
from pathlib import Path
from typing import Any, TypeAlias

import urllib3

from deploy.local.part import PartFailedError

Object: TypeAlias = dict[str, Any]
_SECONDS = 5.0
_OK, _CREATED, _CONFLICT = 200, 201, 409


class SimulatorApi:
    """Calls block, and may come from several threads.

    Args:
        kubeconfig: That the simulator has written, which is JSON; it is read at once.
    """

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_bytes())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._server: str = cluster["server"]
        self._http = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {user['token']}"},
            ssl_context=ssl.create_default_context(cadata=authority),
            timeout=_SECONDS,
            retries=False,
        )

    def items(self, path: str) -> list[Object]:
        """The objects of a list, such as `/api/v1/services`.

        Raises:
            OSError: There is no answer, or it is none.
        """
        try:
            answer = self._http.request("GET", self._server + path)
        except urllib3.exceptions.HTTPError as error:
            raise OSError(f"the simulator does not answer: {error}") from error
        if answer.status != _OK:
            raise OSError(f"the simulator answers {answer.status}")
        found: list[Object] = answer.json()["items"]
        return found

    def ensure_namespace(self, name: str) -> None:
        """Create the namespace unless it exists.

        Raises:
            PartFailedError: The simulator refuses, or does not answer.
        """
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        try:
            answer = self._http.request("POST", f"{self._server}/api/v1/namespaces", json=body)
        except urllib3.exceptions.HTTPError as error:
            raise PartFailedError(f"The simulator does not make namespace {name}: {error}") from error
        if answer.status not in {_CREATED, _CONFLICT}:
            raise PartFailedError(f"The simulator does not make namespace {name}: {answer.data.decode()}")

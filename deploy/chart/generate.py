"""Make what the chart has of the code: `python -m deploy.chart.generate`.

values.schema.json is made of the services' settings, files/generated.yaml of routes and settings, deploy/kubernetes of
the chart itself, and deploy/dependencies/nats-accounts.yaml of deploy/nats/accounts.conf.
"""

import json
import subprocess
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from deploy.chart import settings, tools
from shared.contracts.catalogue import CATALOGUE
from shared.routes import FRONT_DOOR, ROUTES, SERVICES, Route

HERE = Path(__file__).parent
CHART = HERE / "gpudev"
KUBERNETES = HERE.parent / "kubernetes"
NATS = HERE.parent / "dependencies" / "nats-accounts.yaml"
ACCOUNTS = HERE.parent / "nats" / "accounts.conf"
RELEASE, NAMESPACE = "gpudev", "gpudev-system"
_CLUSTER = ("jobs", "capacity")
"""Services that speak to Kubernetes."""
_SSH_PORT, _JUPYTER_PORT = 2222, 8888
"""Of the tools image's servers in jobs' pods."""
_OLDEST = "1.30.0"
"""Of Kubernetes, for the manifests that are rendered here; the chart itself goes further back."""
_MADE = "# Made by `make chart`; a test holds it equal.\n"


def schema() -> str:
    """values.schema.json."""
    base = yaml.safe_load((HERE / "schema.yaml").read_text())
    base["definitions"]["settings"] = settings.common_schema()
    for name in SERVICES:
        base["definitions"][f"{name}Settings"] = settings.service_schema(name)
    return json.dumps(base, indent=2) + "\n"


def facts() -> str:
    """files/generated.yaml: what the templates read of the code."""
    content = {
        "routes": list(_paths()),
        "cluster": list(_CLUSTER),
        "secrets": {name: settings.secrets(name) for name in SERVICES},
        "ofJobs": settings.of_jobs(),
        "required": {name: settings.required(name) for name in SERVICES},
        "sshPort": _SSH_PORT,
        "jupyterPort": _JUPYTER_PORT,
        "sessionSeconds": settings.default("session_seconds"),
        "instanceTypes": {instance.name: instance.gpu_type for instance in CATALOGUE},
    }
    return _MADE + yaml.safe_dump(content, sort_keys=False)


def accounts() -> str:
    """Who may say what on NATS, as a value of NATS's own chart."""
    text = textwrap.indent(ACCOUNTS.read_text(), 8 * " ")
    return f"{_MADE}configMap:\n  merge:\n    data:\n      accounts.conf: |\n{text}"


def _paths() -> Iterable[dict[str, str]]:
    """The rows of the route table, and everything else to the front door, which answers 404 in our form.

    With a slash at its end a path is the same path: a prefix has that already, an exact row needs a second one.
    """
    for route in ROUTES:
        yield _path(route.path, route)
        if route.exact and route.path != "/":
            yield _path(f"{route.path}/", route)
    yield {"path": "/", "type": "Prefix", "service": FRONT_DOOR}


def _path(path: str, route: Route) -> dict[str, str]:
    return {"path": path, "type": "Exact" if route.exact else "Prefix", "service": route.service}


def render(*arguments: str, major: int = 4, values: dict[str, Any] | None = None) -> str:
    """The chart as `helm template` renders it.

    Raises:
        subprocess.CalledProcessError: Helm refuses it; its standard error says why.
    """
    command = [str(tools.helm(major)), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *arguments]
    if values is not None:
        command += ["--values", "-"]
    given = None if values is None else yaml.safe_dump(values)
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout


def manifests() -> dict[Path, str]:
    """deploy/kubernetes: the whole with the defaults, its migrations as plain Jobs; and the namespaces alone."""
    plain = ["--kube-version", _OLDEST, "--skip-tests", "--set", "migrations.hook=false"]
    return {
        KUBERNETES / "install.yaml": _MADE + render(*plain),
        KUBERNETES / "namespaces.yaml": _MADE + render("--show-only", "templates/namespaces.yaml"),
    }


def main() -> None:
    """Write all of it; the rendered ones last, since they need the others."""
    (CHART / "values.schema.json").write_text(schema())
    (CHART / "files" / "generated.yaml").write_text(facts())
    NATS.write_text(accounts())
    for path, text in manifests().items():
        path.write_text(text)


if __name__ == "__main__":
    main()

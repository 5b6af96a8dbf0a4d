"""Another demo user of a stack that runs."""

from pathlib import Path

from deploy.local import proc
from deploy.local.aws import Cloud
from deploy.local.broker import Broker
from deploy.local.github_keys import make_key_pair
from deploy.local.ssh_config import write_ssh_config
from deploy.local.stack import exports
from deploy.local.state import RunningStack, StateDirectory


class NotRunningError(Exception):
    """No stack runs on the state folder."""


def issue(state: StateDirectory, name: str) -> str:
    """Export lines, as in the stack's `env` file, for a user of that name, who has an SSH key afterwards.

    Raises:
        NotRunningError: no stack runs on the folder.
        InvalidNameError: AWS would refuse the name.
    """
    table = state.running()
    if table is None or not any(proc.start_time(part.pid) == part.started for part in table.parts):
        raise NotRunningError(f"No stack runs on {state.root}. Start one with 'make run', or set GPUDEV_STATE.")
    secrets = state.secrets()
    cloud = Cloud(directory=state.cloud, disks=state.disks, port=_port(table, "moto"))
    broker = Broker(
        directory=state.broker,
        port=_port(table, "nats"),
        services_password=secrets.broker_services,
        tools_password=secrets.broker_tools,
    )
    make_key_pair(state.github, name)
    write_ssh_config(state)
    return exports(table.url, cloud, cloud.identity(name), broker, Path(table.kubeconfig))


def _port(table: RunningStack, name: str) -> int:
    for part in table.parts:
        if part.name == name and part.port is not None:
            return part.port
    raise NotRunningError(f"The stack has no {name} yet: wait until it is ready.")

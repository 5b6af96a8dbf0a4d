"""What only the simulator promises: pods and node ports are reachable on this machine."""

import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from kubernetes.client import CoreV1Api

from deploy.local.cluster.registry import services
from deploy.local.ports import give_up, is_free
from tests.cluster.objects import pod
from tests.cluster.simulation import Simulation
from tests.cluster.waiting import eventually, pod_in_phase

_SERVER = """
import os, socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(os.environ["NAME"].encode() + self.rfile.read())
socketserver.TCPServer((os.environ["GPUDEV_POD_IP"], 2222), Echo).serve_forever()
"""


def server(name: str, *, ready: bool = True) -> dict[str, object]:
    probe = {"tcpSocket": {"port": 2222 if ready else 1}, "periodSeconds": 1}
    container = {"env": [{"name": "NAME", "value": name}], "readinessProbe": probe, "ports": [{"containerPort": 2222}]}
    return pod(name, command=["python3", "-c", _SERVER], container=container, metadata={"labels": {"app": name}})


def serve(core: CoreV1Api, name: str, **options: bool) -> int:
    """A pod that answers with its name and what it was sent, behind a Service; the node port."""
    made = core.create_namespaced_pod("default", server(name, **options))
    ports = [{"port": 80, "targetPort": 2222}]
    body = {"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"app": name}, "ports": ports}}
    service = core.create_namespaced_service("default", body)
    pod_in_phase(core, made, "Running")
    return int(service.spec.ports[0].node_port)


def ask(port: int, text: bytes = b"") -> bytes | None:
    """What comes back for the text: nothing where no pod is ready; None when nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
    except ConnectionRefusedError:
        return None
    except OSError:
        return b""


def test_a_node_port_leads_to_its_ready_pod(simulation: Simulation, connect: Callable[[Simulation], CoreV1Api]) -> None:
    core = connect(simulation)
    first, second, unready = serve(core, "one"), serve(core, "two"), serve(core, "three", ready=False)
    data = b"x" * 1_000_000
    eventually(lambda: ask(first, data) == b"one" + data, "an answer of the first")
    eventually(lambda: ask(second) == b"two", "an answer of the second")
    eventually(lambda: ask(unready) == b"", "the port of a Service without a ready pod")
    core.delete_namespaced_service("one", "default")
    eventually(lambda: ask(first) is None, "the port closed")
    assert ask(second) == b"two"
    simulation.kill()
    assert ask(second) is None
    simulation.start()
    eventually(lambda: ask(second) == b"two", "an answer after the restart")


def test_pods_and_ports_of_two_simulators_do_not_meet(
    simulation: Simulation, connect: Callable[[Simulation], CoreV1Api]
) -> None:
    core = connect(simulation)
    other = Simulation(simulation.state.with_name("other"))
    other.start()
    try:
        ports = [serve(core, "here"), serve(connect(other), "there")]
        eventually(lambda: [ask(port) for port in ports] == [b"here", b"there"], "an answer of each")
    finally:
        other.stop()


def test_a_port_that_another_simulator_is_about_to_open_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    port = next(port for port in range(14_000, 15_000) if is_free(port) and is_free(port + 1))
    monkeypatch.setattr(services, "NODE_PORTS", range(port, port + 2))
    choose = f"from deploy.local.ports import claim; print(claim({port}), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", choose], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        chosen = {services._free_node_port(set()) for _ in range(20)}
        other.communicate(b"\n")
    give_up(port + 1)

    assert chosen == {port + 1}

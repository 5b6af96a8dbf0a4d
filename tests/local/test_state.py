import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.local.applications import passed_on
from deploy.local.cluster_part import DEMO_FLEET
from deploy.local.ports import free_ports, is_free
from deploy.local.stack import SettingError, Settings, read_settings
from deploy.local.state import StateDirectory, StateInUseError, write_private
from shared.routes import SERVICES


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_made_once_and_are_ours_alone(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.create()

    first, second = state.secrets(), StateDirectory(tmp_path / "state").secrets()

    assert first == second
    assert mode(tmp_path / "state" / "secrets.json") == 0o600
    assert len({*first.databases.values(), first.postgres, first.broker_services, first.broker_tools}) == 7
    assert len({*first.encryption_keys.values(), first.key_hash_key}) == len(SERVICES) + 1


def test_others_may_not_list_the_state(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.create()

    assert not mode(state.root) & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH)


def test_a_private_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "file", "secret")
    finally:
        os.umask(before)

    assert mode(tmp_path / "file") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "file", "old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_private(tmp_path / "file", "new")

    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_one_stack_at_a_time_uses_a_folder(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)

    with state.lock(), pytest.raises(StateInUseError, match=f"process {os.getpid()}"):
        state.lock()

    state.lock().close()


def test_settings_have_the_documented_defaults() -> None:
    assert read_settings({}) == Settings(state=Path(".local"), port=8000, replicas=1, nodes=DEMO_FLEET, kubeconfig=None)
    assert DEMO_FLEET.split(",") == ["p5.48xlarge"] * 2 + ["p4d.24xlarge"] * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GPUDEV_PORT", "http"),
        ("GPUDEV_PORT", "0"),
        ("GPUDEV_PORT", "65536"),
        ("GPUDEV_PORT", "-1"),
        ("GPUDEV_REPLICAS", "0"),
        ("GPUDEV_REPLICAS", "10"),
        ("GPUDEV_REPLICAS", "²"),
        ("GPUDEV_KUBECONFIG", "/no/such/file"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name):
        read_settings({name: value})


def test_services_get_the_callers_settings_but_not_the_stacks() -> None:
    caller = {
        "GPUDEV_KEY_TTL_HOURS": "1",
        "GPUDEV_GPU_RESOURCE": "example.com/gpu",
        "GPUDEV_STATE": "/state",
        "GPUDEV_KUBECONFIG": "/kubeconfig",
        "GPUDEV_TEST_NATS_URL": "nats://elsewhere",
        "AWS_SECRET_ACCESS_KEY": "the caller's own",
        "HOME": "/home/me",
    }

    assert passed_on(caller) == {"GPUDEV_KEY_TTL_HOURS": "1", "GPUDEV_GPU_RESOURCE": "example.com/gpu"}


def test_free_ports_are_different_and_out_of_the_way_of_clients() -> None:
    ports = free_ports(50)

    assert len(set(ports)) == 50
    assert all(is_free(port) and port < 30_000 for port in ports)


def test_two_processes_choose_no_port_twice_while_they_live() -> None:
    choose = "from deploy.local.ports import free_ports; print(*free_ports(4000), flush=True); input()"
    command = [sys.executable, "-c", choose]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(3)
        ]
        chosen = [process.stdout.readline().split() for process in processes if process.stdout is not None]
        for process in processes:
            process.kill()

    assert len({port for ports in chosen for port in ports}) == 3 * 4000

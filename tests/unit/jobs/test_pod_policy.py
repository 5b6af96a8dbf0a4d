"""What operators decide about pods, as the pods have it."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.manifests import pod_manifest
from services.jobs.domain.pod_policy import name_part
from services.jobs.settings import JobsSettings
from shared.contracts.catalogue import CATALOGUE
from shared.contracts.labels import JOB_LABEL
from shared.settings import SettingsError
from tests.support.pods import preparing

NEEDED = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL"),
    *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETUID", "SYS_CHROOT"),
}


def pod(settings: dict[str, Any] | None = None, **job: Any) -> dict[str, Any]:
    return pod_manifest(
        preparing(**job), policy_settings(**{"tools_image": "tools:1", **(settings or {})}).pod_policy()
    )


def policy_settings(**settings: Any) -> JobsSettings:
    return JobsSettings(database_url="", nats_url="", secret_keys="", **settings)


def containers(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [*made["spec"]["containers"], *made["spec"]["initContainers"]]


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("instance", CATALOGUE, ids=lambda instance: instance.name)
def test_every_container_is_limited_to_its_gpus_part_of_the_node(instance: Any, gpus: int) -> None:
    for container in containers(pod(instance_type=instance.name, gpu_count=gpus)):
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        part = gpus / instance.gpus_per_node
        assert 0.8 * part * instance.cpus <= int(limits["cpu"]) <= 0.9 * part * instance.cpus
        memory = int(limits["memory"].removesuffix("Gi"))
        assert 0.85 * part * instance.memory_gib <= memory <= 0.9 * part * instance.memory_gib
        assert limits["ephemeral-storage"] == f"{100 + 4 + gpus * 50}Gi"
        # else Kubernetes would request the limit, and no node has room for that beside its own
        assert (requests["cpu"], requests["memory"], requests["ephemeral-storage"]) == ("0", "0", "0")


def test_what_the_operators_say_a_gpu_has_is_requested_too() -> None:
    main, _ = containers(pod({"cpu_per_gpu": 6, "memory_gib_per_gpu": 60}, gpu_count=2))
    for amounts in main["resources"].values():
        assert (amounts["cpu"], amounts["memory"], amounts["nvidia.com/gpu"]) == ("12", "120Gi", "2")


def test_a_disk_is_no_storage_of_the_node() -> None:
    main, _ = containers(pod(ebs_volume_id="vol-1", disk_name="data", gpu_count=1))
    assert main["resources"]["limits"]["ephemeral-storage"] == f"{4 + 50}Gi"


@pytest.mark.parametrize("disk", [{}, {"ebs_volume_id": "vol-1", "disk_name": "data"}])
def test_every_volume_on_the_node_has_a_limit(disk: dict[str, str]) -> None:
    volumes = [volume["emptyDir"] for volume in pod(**disk)["spec"]["volumes"] if "emptyDir" in volume]
    assert volumes
    assert all(volume["sizeLimit"] for volume in volumes)


def test_containers_have_the_capabilities_that_they_need_and_no_others() -> None:
    main, tools = (container["securityContext"] for container in containers(pod()))
    assert main["capabilities"]["drop"] == tools["capabilities"]["drop"] == ["ALL"]
    assert set(main["capabilities"]["add"]) == NEEDED
    assert "add" not in tools["capabilities"]
    assert not main["allowPrivilegeEscalation"]
    wider, _ = containers(pod({"extra_capabilities": "IPC_LOCK, SYS_PTRACE"}))
    assert set(wider["securityContext"]["capabilities"]["add"]) == {*NEEDED, "IPC_LOCK", "SYS_PTRACE"}


def test_nothing_is_said_that_the_operators_did_not_say() -> None:
    spec = pod()["spec"]
    assert {"hostUsers", "imagePullSecrets", "priorityClassName", "runtimeClassName"}.isdisjoint(spec)
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert spec["automountServiceAccountToken"] is False


def test_what_the_operators_say_is_in_the_pod() -> None:
    made = pod(
        {
            "user_namespaces": True,
            "priority_class": "gpu-jobs",
            "runtime_class": "nvidia",
            "image_pull_secrets": "registry, registry-{user}",
            "extra_tolerations": '[{"key": "team", "value": "ml", "effect": "NoSchedule"}, {"operator": "Exists"}]',
            "pod_labels": f'{{"cost-centre": "42", "{JOB_LABEL}": "forged"}}',
            "pod_annotations": '{"example.org/note": "a, b = c"}',
        },
        username="Ann@example.com",
    )
    spec, metadata = made["spec"], made["metadata"]
    assert spec["hostUsers"] is False
    assert (spec["priorityClassName"], spec["runtimeClassName"]) == ("gpu-jobs", "nvidia")
    assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "registry--41nn-40example-2ecom"}]
    assert spec["tolerations"][1:] == [
        {"key": "team", "value": "ml", "effect": "NoSchedule"},
        {"operator": "Exists"},
    ]
    assert metadata["labels"]["cost-centre"] == "42"
    assert metadata["labels"][JOB_LABEL] != "forged"
    assert metadata["annotations"]["example.org/note"] == "a, b = c"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extra_capabilities", "CAP_IPC_LOCK"),
        ("extra_capabilities", "ALL"),
        ("extra_capabilities", "ipc_lock"),
        ("image_pull_secrets", "Registry"),
        ("image_pull_secrets", "registry-{username}"),
        ("extra_tolerations", '{"key": "team"}'),
        ("extra_tolerations", '[{"key": "team", "efect": "NoSchedule"}]'),
        ("extra_tolerations", '[{"value": "ml"}]'),
        ("pod_labels", '{"a": 1}'),
        ("pod_annotations", "a=b"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"GPUDEV_{name.upper()}: "):
        policy_settings(**{name: value})


_USERNAMES = st.text(st.sampled_from("abcXYZ019._-@"), min_size=1, max_size=64)


@given(_USERNAMES, _USERNAMES)
def test_no_two_users_have_one_pull_secret(one: str, other: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,192}", name_part(one))
    assert (one == other) == (name_part(one) == name_part(other))

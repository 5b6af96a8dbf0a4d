"""What a job's container gets of its user's text, and what it has by itself."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.local.cluster.kubelet.environment import expand
from services.jobs.domain.environment import RESERVED_NAMES, RESERVED_PREFIXES
from services.jobs.domain.job import Job
from services.jobs.domain.manifests import pod_manifest
from services.jobs.domain.pod_policy import PodPolicy
from services.jobs.schemas.requests import SubmitRequest
from tests.support.jobs import a_job

DOCS = Path(__file__).parents[3] / "docs" / "jobs.md"
POLICIES = {"bare": PodPolicy(), "with tools": PodPolicy(tools_image="tools:1")}
DISK: dict[str, Any] = {"disk_name": "data", "ebs_volume_id": "vol-1", "availability_zone": "a"}


def spec(job: Job, policy: PodPolicy) -> dict[str, Any]:
    found: dict[str, Any] = pod_manifest(job, policy)["spec"]
    return found


def main(job: Job, policy: PodPolicy) -> dict[str, Any]:
    found: dict[str, Any] = spec(job, policy)["containers"][0]
    return found


def environment(job: Job, policy: PodPolicy) -> dict[str, str]:
    """Value by name; of what comes out of the Secret the key in angle brackets."""
    return {
        entry["name"]: entry["value"] if "value" in entry else f"<{entry['valueFrom']['secretKeyRef']['key']}>"
        for entry in main(job, policy)["env"]
    }


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@given(st.text(alphabet="$()AB {}'\"\\\n", min_size=1), st.sampled_from([None, "/a $(A)", "/$$"]))
@example("echo $$ $(A) '$(A)' $$(A) $(echo $(A)) ${A} $", None)
def test_the_shell_gets_the_command_byte_for_byte(policy: PodPolicy, command: str, directory: str | None) -> None:
    job = a_job(command=command, working_dir=directory, env_var_names=["A"])
    words = [expand(word, {"A": "a secret"}) for word in main(job, policy)["command"]]
    assert words[-1] == command
    assert directory in {None, main(job, policy).get("workingDir"), *words}
    assert not [word for word in words if "secret" in word]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("disk", [{}, DISK], ids=["without disk", "with disk"])
def test_nothing_of_the_image_is_hidden_and_no_volume_is_without_bound(policy: PodPolicy, disk: dict[str, Any]) -> None:
    job = a_job(command="true", env_var_names=["HOME"], **disk)
    mounts = {mount["mountPath"] for mount in main(job, policy)["volumeMounts"]}
    assert mounts - {"/gpudev", "/gpudev/access"} == {"/home/dev", "/dev/shm"}
    sources = {volume["name"]: volume for volume in spec(job, policy)["volumes"]}
    assert all(volume["emptyDir"]["sizeLimit"] for volume in sources.values() if "emptyDir" in volume)
    assert ("persistentVolumeClaim" in sources["home"]) == bool(disk)


def test_the_bounds_of_the_volumes_are_the_operators() -> None:
    policy = PodPolicy(tools_image="tools:1", scratch_gib=7, tools_gib=3, shm_gib_per_gpu=2)
    sizes = {
        volume["name"]: volume["emptyDir"]["sizeLimit"]
        for volume in spec(a_job(), policy)["volumes"]
        if "emptyDir" in volume
    }
    assert sizes == {"home": "7Gi", "tools": "3Gi", "shm": "16Gi"}


@pytest.mark.parametrize(
    ("fields", "told", "container"),
    [
        ({"command": "true"}, None, None),
        ({}, "/home/dev", "/home/dev"),
        ({"command": "true", **DISK}, "/home/dev", "/home/dev"),
        ({"command": "true", "working_dir": "/data"}, "/data", "/home/dev"),
        ({"command": "true", "working_dir": "/data", **DISK}, "/data", "/home/dev"),
        ({"command": "true", "working_dir": "/"}, "/", "/home/dev"),
    ],
)
def test_where_a_job_starts(fields: dict[str, Any], told: str | None, container: str | None) -> None:
    job = a_job(**fields)
    assert job.start_directory == told
    made, bare = main(job, POLICIES["with tools"]), main(job, POLICIES["bare"])
    assert made.get("workingDir") == container, "exec is at home wherever the image need not be asked"
    assert bare.get("workingDir") == told
    asked = made["command"][3] if "--in" in made["command"] else None
    assert asked == told


def test_home_and_prompt_output_are_in_every_environment() -> None:
    for policy in POLICIES.values():
        job = a_job(command="true", env_var_names=["A"])
        assert environment(job, policy) == {
            "HOME": "/home/dev",
            "LOGNAME": "dev",
            "PYTHONUNBUFFERED": "1",
            "USER": "dev",
            "A": "<A>",
        }


def test_the_user_may_say_otherwise_and_a_home_is_the_commands_alone() -> None:
    job = a_job(command="true", env_var_names=["HOME", "PYTHONUNBUFFERED", "USER"])
    with_tools = environment(job, POLICIES["with tools"])
    assert (with_tools["HOME"], with_tools["PYTHONUNBUFFERED"], with_tools["USER"]) == (
        "/home/dev",
        "<PYTHONUNBUFFERED>",
        "<USER>",
    )
    (access,) = [volume for volume in spec(job, POLICIES["with tools"])["volumes"] if volume["name"] == "access"]
    assert {"key": "HOME", "path": "home"} in access["secret"]["items"]
    assert environment(job, POLICIES["bare"])["HOME"] == "<HOME>", "who has no sessions needs no other home"


def test_names_of_the_platform_do_not_reach_a_pod_even_of_a_job_that_was_taken_with_them() -> None:
    job = a_job(command="true", env_var_names=["A", "NVIDIA_VISIBLE_DEVICES", "KUBERNETES_SERVICE_HOST"])
    for policy in POLICIES.values():
        assert environment(job, policy).keys() & set(job.env_var_names) == {"A"}


def test_the_documents_name_all_that_belongs_to_the_platform() -> None:
    told = DOCS.read_text()
    names = [*RESERVED_NAMES, *(f"{prefix}*" for prefix in RESERVED_PREFIXES)]
    assert [name for name in names if f"`{name}`" not in told] == []
    assert all(name in str(SubmitRequest.__annotations__["env_vars"]) for name in names)

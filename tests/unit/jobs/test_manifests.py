"""The objects that a job is given in the cluster."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.disk_manifests import volume_claim_manifest, volume_manifest
from services.jobs.domain.manifests import (
    label_value,
    labels,
    object_name,
    pod_manifest,
    secret_manifest,
    service_manifest,
)
from services.jobs.domain.pod import SSHD_PATIENCE
from services.jobs.domain.pod_policy import PodPolicy
from tests.support.pods import preparing

GOLDEN = Path(__file__).parents[2] / "data" / "jobs"


GOLDENS = ["pod_with_command", "pod_that_idles", "bare_pod_with_command", "bare_pod_that_idles", "service", "secret"]


@pytest.mark.parametrize("kind", [*GOLDENS, "bare_service"])
def test_manifests_are_the_golden_ones(kind: str) -> None:
    """After a wanted change: delete the file, run once, read the difference."""
    command = None if kind.endswith("idles") else "python train.py --epochs 100"
    job = preparing(gpu_count=2, command=command, env_var_names=["EXPERIMENT", "WANDB_API_KEY"])
    share = {"cpu_per_gpu": 12, "memory_gib_per_gpu": 120} if kind == "pod_with_command" else {}
    policy = PodPolicy(tools_image=None if kind.startswith("bare") else "registry.example/gpudev/tools:1", **share)
    values = {"EXPERIMENT": "training-v1", "WANDB_API_KEY": "secret"}
    made = {
        "pod": lambda: pod_manifest(job, policy),
        "service": lambda: service_manifest(job, policy, "pod-uid"),
        "secret": lambda: secret_manifest(job, values, "ssh-ed25519 AAAA\n"),
    }[kind.removeprefix("bare_").split("_")[0]]()
    path = GOLDEN / f"{kind}.json"
    if not path.exists():
        path.write_text(json.dumps(made, indent=2, sort_keys=True) + "\n")
        pytest.fail(f"{path} was made: read it, then run again")
    assert json.loads(json.dumps(made)) == json.loads(path.read_text())


@pytest.mark.parametrize("kind", ["disk_pod", "disk_volume", "disk_claim"])
def test_manifests_of_a_job_with_a_disk_are_the_golden_ones(kind: str) -> None:
    """After a wanted change: delete the file, run once, read the difference."""
    job = preparing(
        gpu_count=2, disk_name="data", ebs_volume_id="vol-0123456789abcdef0", availability_zone="us-east-2a"
    )
    name, own = object_name(job), labels(job)
    made = {
        "disk_pod": lambda: pod_manifest(job, PodPolicy()),
        "disk_volume": lambda: volume_manifest(job, name, own, "gpudev"),
        "disk_claim": lambda: volume_claim_manifest(name, own),
    }[kind]()
    path = GOLDEN / f"{kind}.json"
    if not path.exists():
        path.write_text(json.dumps(made, indent=2, sort_keys=True) + "\n")
        pytest.fail(f"{path} was made: read it, then run again")
    assert json.loads(json.dumps(made)) == json.loads(path.read_text())


@given(st.integers(300, 72 * 3600), st.integers(1, 168), st.integers(1, 7200), st.floats(0, 1))
def test_the_pods_own_deadline_never_comes_before_the_jobs_end(
    duration: int, hours: int, prepare: int, late: float
) -> None:
    policy = PodPolicy(longest_seconds=hours * 3600, prepare_seconds=prepare)
    job = preparing(duration_seconds=duration)
    life = pod_manifest(job, policy)["spec"]["activeDeadlineSeconds"]
    longest = max(duration, policy.longest_seconds)
    assert late * prepare + SSHD_PATIENCE.total_seconds() + longest < life


@given(st.text(min_size=1, max_size=90), st.text(min_size=1, max_size=90))
def test_label_values_are_valid_and_do_not_meet(one: str, other: str) -> None:
    value = label_value(one)
    assert len(value) <= 63
    assert value.replace("-", "").replace(".", "").replace("_", "").isalnum()
    assert value[0].isalnum()
    assert value[-1].isalnum()
    assert (one == other) or (value != label_value(other))

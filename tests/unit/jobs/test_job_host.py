"""The host of a job's own."""

import pytest

from services.jobs.domain.job_host import ingress_manifest, job_host
from services.jobs.domain.manifests import object_name, service_manifest
from services.jobs.domain.pod_policy import PodPolicy
from services.jobs.settings import JobsSettings
from shared.settings import SettingsError
from tests.support.pods import preparing

TOOLS = "registry.example/gpudev/tools:1"


def test_its_ingress_leads_to_the_port_of_jupyter_and_belongs_to_the_pod() -> None:
    job = preparing()
    policy = PodPolicy(
        tools_image=TOOLS,
        job_domain="jobs.example.org",
        job_tls_secret="wildcard",
        job_ingress_class="traefik",
        job_ingress_annotations={"example.org/a": "b"},
    )
    made = ingress_manifest(job, policy, "pod-uid")
    assert made is not None
    host = f"{str(job.id)[:8]}.jobs.example.org"
    assert host == job_host(job.id, "jobs.example.org")
    service = service_manifest(job, policy, "pod-uid")
    assert {key: made["metadata"][key] for key in service["metadata"]} == service["metadata"]
    assert made["metadata"]["annotations"] == {"example.org/a": "b"}
    assert (made["spec"]["ingressClassName"], made["spec"]["tls"]) == (
        "traefik",
        [{"hosts": [host], "secretName": "wildcard"}],
    )
    (rule,) = made["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"], path["pathType"]) == (host, "/", "Prefix")
    backend = path["backend"]["service"]
    assert backend["name"] == object_name(job)
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize("policy", [PodPolicy(tools_image=TOOLS), PodPolicy(job_domain="jobs.example.org")])
def test_without_a_domain_or_without_jupyter_there_is_none(policy: PodPolicy) -> None:
    assert ingress_manifest(preparing(), policy, "pod-uid") is None


def test_an_address_that_names_what_there_is_not_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="job_url"):
        JobsSettings(database_url="", nats_url="", secret_keys="", job_url="https://{port}/")

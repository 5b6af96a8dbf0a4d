"""Who reaches whom, out of the rendered policies: the matrix below is all of it."""

import itertools
from typing import Any

import pytest

from tests.support.chart import Object, objects, of_kind, pod_templates
from tests.support.reachability import End, reaches

HTTP, METRICS, SSH, JUPYTER, DNS = 8000, 9000, 2222, 8888, 53
POSTGRES, NATS, HTTPS, API, METADATA, OTLP = 5432, 4222, 443, 6443, 80, 4318


def pod(address: str, namespace: str, **labels: str) -> End:
    return End(address, namespace, labels, {"kubernetes.io/metadata.name": namespace})


def ours(component: str, number: int) -> End:
    """A pod of the control plane, with the labels that its template gives it."""
    for _, template in pod_templates():
        labels = template["metadata"]["labels"]
        if labels["app.kubernetes.io/component"] == component:
            return pod(f"10.244.1.{number}", "gpudev-system", **labels)
    raise LookupError(component)


ENDS = {
    "auth": ours("auth", 1),
    "jobs": ours("jobs", 2),
    "disks": ours("disks", 3),
    "capacity": ours("capacity", 4),
    "migration": ours("migration", 5),
    "test": ours("test", 6),
    "job": pod("10.244.2.1", "gpudev", **{"gpudev/job-id": "1"}),
    "other job": pod("10.244.2.2", "gpudev", **{"gpudev/job-id": "2"}),
    "ingress": pod("10.244.3.1", "traefik"),
    "prometheus": pod("10.244.3.2", "monitoring"),
    "stranger": pod("10.244.3.3", "default"),
    "dns": pod("10.244.3.4", "kube-system"),
    "postgres": pod("10.244.3.5", "postgres"),
    "nats": pod("10.244.3.6", "nats"),
    "node": End("10.201.0.2"),
    "api": End("10.201.0.10"),
    "api's service": End("10.96.0.1"),
    "metadata": End("169.254.169.254"),
    "pod identity": End("169.254.170.23"),
    "internet": End("93.184.216.34"),
    "internet 6": End("2606:2800:220:1::1"),
    "private 6": End("fd12:3456::1"),
}
SERVICES = ("auth", "jobs", "disks", "capacity")
PORTS = (HTTP, METRICS, SSH, JUPYTER, DNS, POSTGRES, NATS, HTTPS, API, METADATA, 22, 10250)

# source -> target -> ports; DNS apart, which all of ours may ask anywhere
MATRIX: dict[str, dict[str, set[int]]] = {
    "ingress": {key: {HTTP} for key in SERVICES},
    "prometheus": {key: {METRICS} for key in SERVICES},
    "test": {key: {HTTP} for key in SERVICES},
    "jobs": {"auth": {HTTP}, "job": {SSH}, "other job": {SSH}},
    "disks": {"auth": {HTTP}},
    "capacity": {"auth": {HTTP}},
    # nodes are known by private addresses alone
    **{
        name: {"job": {SSH, JUPYTER}, "other job": {SSH, JUPYTER}}
        for name in ("node", "api", "api's service", "private 6")
    },
}
DATA = {POSTGRES, NATS}
# ports that a service may use anywhere: where the database, NATS, AWS and the API are is not the chart's to know
ANYWHERE: dict[str, set[int]] = {
    "auth": {*DATA, HTTPS},
    "jobs": {*DATA, HTTPS, API},
    "disks": {*DATA, HTTPS},
    "capacity": {*DATA, HTTPS, API},
    "migration": {POSTGRES},
    "test": {HTTPS},
}
IDENTITY = {"auth", "disks", "test"}
JOBS_INTERNET = {"internet", "internet 6"}


def expected(source: str, target: str, port: int) -> bool:
    if port in MATRIX.get(source, {}).get(target, ()):
        return True
    if target in {"job", "other job"} or ENDS[target].namespace == "gpudev-system":
        return False
    if ENDS[source].namespace not in {"gpudev", "gpudev-system"} or port == DNS:
        return True
    if source in {"job", "other job"}:
        return target in JOBS_INTERNET
    if target == "pod identity" and port == METADATA:
        return source in IDENTITY
    return port in ANYWHERE[source]


def policies(**values: Any) -> list[Object]:
    return [one for one in objects(**values) if one["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("source", ENDS)
def test_reachability_is_as_the_matrix_says(source: str) -> None:
    rules = policies()
    for target, port in itertools.product(ENDS, PORTS):
        if source == target:
            continue
        found = reaches(rules, ENDS[source], ENDS[target], port, blocks_are_pods=False)
        assert found == expected(source, target, port), (source, target, port)


def test_where_blocks_mean_pods_too_only_ssh_and_jupyter_are_open_to_other_namespaces() -> None:
    rules = policies()
    for source, target, port in itertools.product(ENDS, ENDS, PORTS):
        if source == target:
            continue
        others = ENDS[source].namespace not in {"gpudev", "gpudev-system", None}
        more = others and target in {"job", "other job"} and port in {SSH, JUPYTER}
        found = reaches(rules, ENDS[source], ENDS[target], port, blocks_are_pods=True)
        assert found == (more or expected(source, target, port)), (source, target, port)


def test_ssh_over_the_api_reaches_jobs_also_where_nobody_else_may() -> None:
    rules = policies(networkPolicies={"jobs": {"from": []}})
    assert reaches(rules, ENDS["jobs"], ENDS["job"], SSH, blocks_are_pods=True)
    assert not reaches(rules, ENDS["jobs"], ENDS["job"], JUPYTER, blocks_are_pods=True)
    assert not reaches(rules, ENDS["disks"], ENDS["job"], SSH, blocks_are_pods=True)


def test_the_ingress_reaches_jupyter_where_jobs_have_hosts() -> None:
    for domain, found in (("jobs.example.org", True), ("", False)):
        rules = policies(services={"jobs": {"settings": {"job_domain": domain}}})
        assert reaches(rules, ENDS["ingress"], ENDS["job"], JUPYTER, blocks_are_pods=False) is found
        assert not reaches(rules, ENDS["ingress"], ENDS["job"], SSH, blocks_are_pods=False)


def test_a_collector_of_traces_is_reached_by_those_who_send_some() -> None:
    def reached(service: str, **values: Any) -> bool:
        return reaches(policies(**values), ENDS[service], ENDS["prometheus"], OTLP, blocks_are_pods=True)

    everybody = {"settings": {"otlp_endpoint": "http://collector.monitoring:4318"}}
    one = {"services": {"disks": everybody}}
    for service in SERVICES:
        assert not reached(service)
        assert reached(service, **everybody)
        assert reached(service, **one) is (service == "disks")


def test_names_are_asked_for_over_udp_too() -> None:
    for source in ("jobs", "job", "migration", "test"):
        for target in ("dns", "metadata", "node"):
            assert reaches(policies(), ENDS[source], ENDS[target], DNS, "UDP", blocks_are_pods=False)
        assert not reaches(policies(), ENDS[source], ENDS["stranger"], 123, "UDP", blocks_are_pods=False)


def test_jobs_never_reach_metadata_the_api_the_control_plane_or_each_other() -> None:
    forbidden = ("metadata", "pod identity", "api", "api's service", "node", *SERVICES, "postgres", "nats", "private 6")
    for target, port, both in itertools.product((*forbidden, "other job"), PORTS, (True, False)):
        if port == DNS and target not in {*SERVICES, "other job"}:
            continue
        assert not reaches(policies(), ENDS["job"], ENDS[target], port, blocks_are_pods=both), (target, port)


def test_every_list_is_a_value() -> None:
    database = {"to": [{"ipBlock": {"cidr": "10.244.3.5/32"}}], "ports": [6432]}
    nfs = {"to": [{"ipBlock": {"cidr": "10.201.0.2/32"}}], "ports": [{"port": 2049}]}
    rules = policies(
        networkPolicies={
            "database": database,
            "ingressFrom": [{"ipBlock": {"cidr": "10.201.0.0/16"}}],
            "metricsFrom": [],
            "dnsPorts": [5353],
            "podIdentity": {"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]},
            "jobs": {"from": [], "ports": [22], "internet": [], "egress": [nfs]},
            "extra": [{"service": "capacity", "egress": [{"to": [{"ipBlock": {"cidr": "10.201.0.2/32"}}]}]}],
        }
    )

    def found(source: str, target: str, port: int) -> bool:
        return reaches(rules, ENDS[source], ENDS[target], port, blocks_are_pods=True)

    assert found("jobs", "postgres", 6432)
    assert not found("jobs", "postgres", POSTGRES)
    assert not found("jobs", "stranger", 6432)
    assert found("node", "auth", HTTP)
    assert not found("ingress", "auth", HTTP)
    assert not found("prometheus", "auth", METRICS)
    assert found("job", "dns", 5353)
    assert not found("job", "dns", DNS)
    assert found("disks", "metadata", METADATA)
    assert not found("node", "job", SSH)
    assert not found("job", "internet", HTTPS)
    assert found("job", "node", 2049)
    assert found("capacity", "node", 10250)
    assert not found("auth", "node", 10250)


def test_without_policies_there_are_none() -> None:
    assert not of_kind("NetworkPolicy", objects(networkPolicies={"enabled": False}))

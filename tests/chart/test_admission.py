"""The admission policy, by the rules of its own language: takes what the jobs service makes, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cel_expr_python import cel

from tests.support.chart import Object, objects, of_kind

MADE = Path(__file__).parents[1] / "data" / "jobs"
ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(("object", "oldObject", "request"), cel.Type.DYN))
NAMES = ("pods", "secrets", "services", "volumes")
JOBS = "system:serviceaccount:gpudev-system:gpudev-jobs"
Change = Callable[[Object], object]


def made(name: str) -> Object:
    content: Object = json.loads((MADE / f"{name}.json").read_text())
    return content


def refusals(policy: str, given: Object, operation: str = "CREATE", user: str = JOBS, **values: Any) -> list[str]:
    """Messages of the rules that refuse it."""
    spec = of_kind("ValidatingAdmissionPolicy", objects(**values))[f"gpudev-{policy}"]["spec"]
    request = {"operation": operation, "userInfo": {"username": user}}
    # an object that is deleted is the old one, and there is no new one
    pair = {"object": None, "oldObject": given} if operation == "DELETE" else {"object": given, "oldObject": None}

    def is_true(expression: str) -> bool:
        found = ENVIRONMENT.compile(expression).eval(data={**pair, "request": request}).value()
        assert isinstance(found, bool), (expression, found)
        return found

    if not all(is_true(condition["expression"]) for condition in spec["matchConditions"]):
        return []
    return [rule["message"] for rule in spec["validations"] if not is_true(rule["expression"])]


@pytest.mark.parametrize("name", sorted(path.stem for path in MADE.glob("*pod*.json")))
def test_every_pod_of_the_jobs_service_is_taken(name: str) -> None:
    assert refusals("pods", made(name)) == []


def test_what_admission_has_filled_in_is_taken() -> None:
    pod = made("pod_with_command")
    pod["spec"] |= {"serviceAccountName": "default", "hostNetwork": False}
    assert refusals("pods", pod) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda pod: pod["spec"]["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "volumes"),
        (lambda pod: pod["spec"]["volumes"].append({"name": "x", "csi": {"driver": "other"}}), "volumes"),
        (lambda pod: pod["spec"]["volumes"].append({"name": "x", "nfs": {"server": "x", "path": "/"}}), "volumes"),
        (lambda pod: pod["spec"]["volumes"].append({"name": "x", "projected": {"sources": []}}), "volumes"),
        (lambda pod: pod["spec"].update(serviceAccountName="admin"), "service account"),
        (lambda pod: pod["spec"].update(automountServiceAccountToken=True), "token"),
        (lambda pod: pod["spec"].pop("automountServiceAccountToken"), "token"),
        (lambda pod: pod["spec"].update(hostNetwork=True), "namespace of its node"),
        (lambda pod: pod["spec"].update(hostPID=True), "namespace of its node"),
        (lambda pod: pod["spec"].update(hostIPC=True), "namespace of its node"),
        (lambda pod: pod["spec"]["containers"][0]["securityContext"].update(privileged=True), "privileged"),
        (lambda pod: pod["spec"]["initContainers"][0]["securityContext"].update(privileged=True), "privileged"),
    ],
)
def test_what_no_job_has_is_refused(change: Change, word: str) -> None:
    pod = made("pod_with_command")
    change(pod)
    (message,) = refusals("pods", pod)
    assert word in message
    assert refusals("pods", pod, user="system:admin") == [], "the policy is for the jobs service"


def test_only_volumes_of_our_driver_for_our_namespace_are_made() -> None:
    volume = made("disk_volume")
    assert refusals("volumes", volume) == []
    assert refusals("volumes", volume, namespaces={"jobs": "research"})
    assert refusals("volumes", volume, admissionPolicy={"csiDriver": "pd.csi.storage.gke.io"})
    del volume["spec"]["claimRef"]
    assert refusals("volumes", volume)
    host = made("disk_volume")
    host["spec"]["hostPath"] = {"path": "/"}
    del host["spec"]["csi"]
    assert refusals("volumes", host)


def test_only_our_own_volumes_are_deleted() -> None:
    volume = made("disk_volume")
    assert refusals("volumes", volume, "DELETE") == []
    volume["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "somebody"
    assert refusals("volumes", volume, "DELETE")
    del volume["metadata"]["labels"]
    assert refusals("volumes", volume, "DELETE")


def test_secrets_and_services_of_jobs_are_taken_and_others_are_not() -> None:
    secret, service = made("secret"), made("service")
    assert (
        refusals("secrets", secret) == refusals("services", service) == refusals("services", made("bare_service")) == []
    )
    del secret["type"]
    assert refusals("secrets", secret) == []
    secret["type"] = "kubernetes.io/service-account-token"
    assert refusals("secrets", secret)
    assert refusals("services", {**service, "spec": {**service["spec"], "externalIPs": ["10.96.0.1"]}})
    assert refusals("services", {**service, "spec": {**service["spec"], "type": "ExternalName"}})
    assert refusals("services", {**service, "spec": {"ports": service["spec"]["ports"]}})


def test_it_is_bound_and_denies() -> None:
    bindings = of_kind("ValidatingAdmissionPolicyBinding")
    assert set(bindings) == set(of_kind("ValidatingAdmissionPolicy")) == {f"gpudev-{name}" for name in NAMES}
    for name, binding in bindings.items():
        assert binding["spec"] == {"policyName": name, "validationActions": ["Deny"]}


BASELINE_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)


def baseline_faults(spec: Object) -> list[str]:
    """Of https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline."""
    faults = [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    faults += [f"volume {volume['name']}" for volume in spec["volumes"] if "hostPath" in volume]
    faults += list(spec["securityContext"].get("sysctls", ()))
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        own = container["securityContext"]
        profiles = [one.get("seccompProfile", {}).get("type") for one in (own, spec["securityContext"])]
        faults += ["privileged"] if own.get("privileged") else []
        faults += ["seccomp"] if "Unconfined" in profiles else []
        faults += sorted(set(own.get("capabilities", {}).get("add", ())) - BASELINE_CAPABILITIES)
        faults += [f"host port {port['hostPort']}" for port in container.get("ports", ()) if "hostPort" in port]
        faults += ["proc mount"] if own.get("procMount", "Default") != "Default" else []
    return faults


@pytest.mark.parametrize("name", sorted(path.stem for path in MADE.glob("*pod*.json")))
def test_pods_of_jobs_are_as_their_namespace_demands(name: str) -> None:
    label = "pod-security.kubernetes.io/enforce"
    assert of_kind("Namespace")["gpudev"]["metadata"]["labels"][label] == "baseline"
    assert baseline_faults(made(name)["spec"]) == []

"""What the chart renders is right for every Kubernetes and every Helm that it is for."""

import functools
import json
import re
import subprocess
import tomllib
from typing import Any

import jsonschema_rs
import pytest
import yaml

from deploy.chart import generate, tools
from tests.support.chart import VERSIONS, Object, objects, of_kind, pod_templates, refusal

EVERYTHING: dict[str, Any] = {
    "image": {"pullSecrets": [{"name": "registry"}], "digests": {"auth": "sha256:" + "0" * 64}},
    "namespaces": {"controlPlaneLabels": {"a": "b"}},
    "services": {
        "auth": {
            "settings": {"allowed_roles": "arn:aws:iam::123456789012:role/lab"},
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "pods": {"nodeSelector": {"disk": "ssd"}, "maxUnavailable": 2},
        },
        "disks": {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/disks"}}},
    },
    "pods": {
        "annotations": {"a": "b"},
        "labels": {"team": "lab"},
        "tolerations": [{"key": "control-plane", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "runtimeClassName": "gvisor",
        "spread": {"hosts": "DoNotSchedule"},
    },
    "certificates": {"secret": "ca"},
    "migrations": {"hook": False},
    "ingress": {
        "host": "gpudev.example.org",
        "className": "nginx",
        "annotations": {"a": "b"},
        "tls": {"secret": "tls", "clusterIssuer": "letsencrypt"},
    },
    "networkPolicies": {
        "database": {"to": [{"ipBlock": {"cidr": "10.0.0.5/32"}}]},
        "jobs": {"egress": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"port": 2049}]}]},
        "extra": [{"service": "disks", "egress": [{"to": [{"ipBlock": {"cidr": "10.8.0.1/32"}}]}]}],
    },
    "test": {"secret": "test", "instanceType": "p5.48xlarge"},
}


@functools.cache
def schema_of(version: str, api_version: str, kind: str) -> jsonschema_rs.Validator | None:
    group, _, name = api_version.rpartition("/")
    folder = tools.schemas(version)
    path = folder / f"{kind.lower()}-{'-'.join(filter(None, [group.split('.')[0], name]))}.json"
    if not path.exists():
        return None
    registry = jsonschema_rs.Registry([(f"{SCHEMAS}/_definitions.json", definitions(version))])
    schema = {"$id": f"{SCHEMAS}/{path.name}", **json.loads(path.read_text())}
    return jsonschema_rs.Draft202012Validator(schema, registry=registry)


SCHEMAS = "http://kubernetes/api"


@functools.cache
def definitions(version: str) -> Any:
    return json.loads((tools.schemas(version) / "_definitions.json").read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: str) -> None:
    for values in ({}, EVERYTHING):
        for one in objects(version=version, **values):
            validator = schema_of(version, one["apiVersion"], one["kind"])
            assert validator is not None, f"Kubernetes {version} has no {one['apiVersion']} {one['kind']}"
            faults = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(one)]
            assert not faults, (one["kind"], one["metadata"]["name"], faults)


def test_a_field_that_kubernetes_does_not_have_is_found() -> None:
    deployment = json.loads(json.dumps(of_kind("Deployment")["gpudev-auth"]))
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    validator = schema_of("1.37", "apps/v1", "Deployment")
    assert validator is not None
    assert not validator.is_valid(deployment)


@pytest.mark.parametrize("version", VERSIONS)
def test_both_helms_render_the_same(version: str) -> None:
    for values in ({}, EVERYTHING):
        assert objects(major=3, version=version, **values) == objects(major=4, version=version, **values)


@pytest.mark.parametrize("major", [3, 4])
def test_two_renders_are_equal_to_the_byte(major: int) -> None:
    assert generate.render(major=major) == generate.render(major=major)


@pytest.mark.parametrize("major", [3, 4])
def test_helm_finds_nothing_to_say_against_the_chart(major: int) -> None:
    lint = [str(tools.helm(major)), "lint", "--strict", "--quiet", str(generate.CHART)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_chart_has_the_version_of_the_code() -> None:
    project = tomllib.loads((generate.HERE.parents[1] / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((generate.CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_what_is_made_of_the_code_is_committed() -> None:
    assert (generate.CHART / "values.schema.json").read_text() == generate.schema()
    assert (generate.CHART / "files" / "generated.yaml").read_text() == generate.facts()
    assert generate.NATS.read_text() == generate.accounts()
    for path, text in generate.manifests().items():
        assert path.read_text() == text, f"{path.name} is old: make chart"


def test_no_object_is_named_twice() -> None:
    for made in (objects(), objects(**EVERYTHING)):
        names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in made]
        assert len(set(names)) == len(names)


def test_the_chart_makes_no_secret_and_asks_the_cluster_nothing() -> None:
    assert not of_kind("Secret", objects(**EVERYTHING))
    for path in (generate.CHART / "templates").rglob("*"):
        if path.is_file():
            text = path.read_text()
            for word in ("lookup", "rand", "genCA", "genSignedCert", "genPrivateKey", "uuidv4", "now", "htpasswd"):
                assert not re.search(rf"[({{|]\s*{word}\b", text), f"{path.name} calls {word}"


def test_migrations_run_before_the_services_and_need_only_secrets() -> None:
    made = objects(version="1.20")
    jobs = of_kind("Job", made)
    assert set(jobs) == {f"gpudev-migrate-{name}" for name in ("auth", "jobs", "disks", "capacity")}
    for job in jobs.values():
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        pod = job["spec"]["template"]["spec"]
        assert "serviceAccountName" not in pod
        assert all("emptyDir" in volume for volume in pod["volumes"])
        variables = pod["containers"][0]["env"]
        assert [one["name"] for one in variables] == ["GPUDEV_DATABASE_URL"]


def test_plain_migrations_have_a_new_name_for_new_content() -> None:
    def names(**values: Any) -> set[str]:
        made = of_kind("Job", objects(migrations={"hook": False}, **values))
        assert not any("annotations" in job["metadata"] for job in made.values())
        return set(made)

    assert names() == names(ingress={"host": "gpudev.example.org"})
    assert names().isdisjoint(names(image={"tag": "2"}))


@pytest.mark.parametrize("version", ["1.20", "1.37"])
def test_every_pod_is_as_pod_security_restricted_wants_it(version: str) -> None:
    seen = 0
    for values in ({}, EVERYTHING):
        for name, pod in pod_templates(objects(version=version, **values)):
            seen += 1
            assert restricted_faults(pod["spec"]) == [], name
            for container in pod["spec"]["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"], name
    assert seen == 2 * 9


def restricted_faults(spec: Object) -> list[str]:
    """Of https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    faults = [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    faults += [f"volume {volume}" for volume in spec.get("volumes", ()) if not set(volume) - {"name"} <= allowed]
    security = spec["securityContext"]
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        faults.append("may run as root")
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        faults.append("seccomp")
    for container in [*spec["containers"], *spec.get("initContainers", ())]:
        own = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            faults.append("privilege")
        if own["capabilities"] != {"drop": ["ALL"]}:
            faults.append("capabilities")
        faults += [f"host port {port}" for port in container.get("ports", ()) if "hostPort" in port]
    return faults


def test_both_namespaces_have_their_pod_security_level_and_stay() -> None:
    made = of_kind("Namespace")
    label = "pod-security.kubernetes.io/enforce"
    levels = {name: one["metadata"]["labels"][label] for name, one in made.items()}
    assert levels == {"gpudev-system": "restricted", "gpudev": "baseline"}
    for one in made.values():
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("version", ["1.20", "1.29"])
def test_old_kubernetes_gets_no_admission_policy(version: str) -> None:
    assert not of_kind("ValidatingAdmissionPolicy", objects(version=version))


def test_services_roll_without_a_gap() -> None:
    made = objects()
    assert len(of_kind("Deployment", made)) == 4
    for name, deployment in of_kind("Deployment", made).items():
        spec = deployment["spec"]
        assert spec["replicas"] == 2
        assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        keys = {one["topologyKey"] for one in spec["template"]["spec"]["topologySpreadConstraints"]}
        assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        budget = of_kind("PodDisruptionBudget", made)[name]["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"] == spec["selector"]
        probes = spec["template"]["spec"]["containers"][0]
        assert probes["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_only_services_that_speak_to_kubernetes_have_a_token() -> None:
    made = of_kind("Deployment")
    tokens = {name: one["spec"]["template"]["spec"]["automountServiceAccountToken"] for name, one in made.items()}
    assert tokens == {"gpudev-auth": False, "gpudev-jobs": True, "gpudev-disks": False, "gpudev-capacity": True}


def test_a_release_of_another_name_shares_nothing_of_the_cluster() -> None:
    cluster = {"ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    for one in objects():
        if one["kind"] in cluster:
            assert one["metadata"]["name"].startswith("gpudev-")


def test_an_unknown_kind_of_ingress_is_refused_by_name() -> None:
    assert "kind" in refusal({"ingress": {"kind": "Gateway"}})


def test_the_operator_of_prometheus_is_asked_for_only_by_value() -> None:
    assert not of_kind("ServiceMonitor")
    made = objects(metrics={"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}})
    monitor = of_kind("ServiceMonitor", made)["gpudev"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["endpoints"]
    for service in of_kind("Service", made).values():
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_alerts_are_a_rule_of_prometheus_operator_only_by_value() -> None:
    assert not of_kind("PrometheusRule")
    runbooks = "https://git.example.org/alerts.md"
    rule = {"enabled": True, "labels": {"release": "prometheus"}, "runbooks": runbooks}
    made = of_kind("PrometheusRule", objects(metrics={"prometheusRule": rule}))["gpudev"]
    assert made["metadata"]["labels"]["release"] == "prometheus"
    plain = yaml.safe_load((generate.CHART / "files" / "alerts.yaml").read_text())
    (group,), (wanted,) = made["spec"]["groups"], plain["groups"]
    assert [one["alert"] for one in group["rules"]] == [one["alert"] for one in wanted["rules"]]
    for one, of_file in zip(group["rules"], wanted["rules"], strict=True):
        assert one["expr"] == of_file["expr"]
        assert one["annotations"]["summary"] == of_file["annotations"]["summary"]
        assert one["annotations"]["runbook_url"] == f"{runbooks}#{one['alert'].lower()}"


def test_the_alerts_of_a_release_of_another_name_are_about_its_services() -> None:
    command = [
        str(tools.helm(4)),
        "template",
        "other",
        str(generate.CHART),
        "--set",
        "metrics.prometheusRule.enabled=true",
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    made = [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]
    (rule,) = of_kind("PrometheusRule", made).values()
    down = next(one["expr"] for one in rule["spec"]["groups"][0]["rules"] if one["alert"] == "GpudevDown")
    services = set(of_kind("Service", made))
    assert set(re.findall(r'up\{job="([\w-]+)"\}', down)) == services
    assert 'job=~"other-(' in down


def test_the_dashboard_is_a_config_map_for_grafana_only_by_value() -> None:
    assert "gpudev-dashboard" not in of_kind("ConfigMap")
    made = of_kind("ConfigMap", objects(metrics={"dashboard": {"enabled": True}}))["gpudev-dashboard"]
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    wanted = json.loads((generate.CHART / "files" / "dashboard.json").read_text())
    assert json.loads(made["data"]["gpudev.json"]) == wanted


def test_the_notes_name_what_is_not_set() -> None:
    def notes(*values: str) -> str:
        # Helm 3 asks for a cluster even so
        command = [str(tools.helm(4)), "install", "gpudev", str(generate.CHART), "--dry-run=client"]
        done = subprocess.run([*command, *values], check=True, capture_output=True, text=True)
        return done.stdout

    roles = "services.auth.settings.allowed_roles"
    assert f"{roles} is not set" in notes()
    assert f"{roles} is not set" not in notes("--set", f"{roles}=arn:aws:iam::1:role/lab")

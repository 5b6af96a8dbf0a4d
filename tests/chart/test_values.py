"""Every setting of every service can be said in the values, and nothing else can."""

import base64
import json
import subprocess
from typing import Any, Literal

import jsonschema_rs
import msgspec
import pytest
import yaml

from deploy.chart import generate, settings
from shared.routes import SERVICES, ServiceName
from shared.settings import CommonSettings
from tests.support.chart import environment, objects, of_kind, pod_templates, refusal

DEFAULTS = yaml.safe_load((generate.CHART / "values.yaml").read_text())
OPEN = {"annotations", "labels", "nodeSelector", "controlPlaneLabels", "jobsLabels", "requests", "limits"}


def value_for(schema: dict[str, Any], name: str) -> Any:
    """A value that the schema takes and that is not the default."""
    if "enum" in schema:
        return next(one for one in schema["enum"] if one not in {schema.get("default"), "", None})
    (kind, _) = schema["type"]
    if kind == "string":
        return f'text of {name}: {{ip}} "quoted" $x'
    if kind == "boolean":
        return not schema.get("default")
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 10_000_000_000))
    number = min(high, max(low + 1, 1_234_567_890 if high > 2e9 else high - 1))
    return number + 0.5 if kind == "number" and number + 0.5 < high else number


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_of_a_service_can_be_set(service: ServiceName) -> None:
    schema = settings.service_schema(service)["properties"]
    wanted = {name: value_for(schema[name], name) for name in settings.names(service)}
    # so that any text will do for capabilities: baseline takes only some
    namespaces = {"podSecurity": {"jobs": "privileged"}}
    found = environment(service, objects(services={service: {"settings": wanted}}, namespaces=namespaces))
    for name, value in wanted.items():
        text = value if isinstance(value, str) else json.dumps(value)
        assert found[f"GPUDEV_{name.upper()}"] == text
    fields = {field.name: field.type for field in msgspec.structs.fields(settings.SETTINGS[service])}
    for name, value in wanted.items():
        # as the service itself reads its environment
        assert msgspec.convert(found[f"GPUDEV_{name.upper()}"], fields[name], strict=False) == value


def test_a_setting_that_is_one_of_several_words_takes_no_other() -> None:
    class Settings(CommonSettings, frozen=True, kw_only=True):
        sweep: Literal["delete", "report"] = "delete"
        """Whether what has no row is deleted."""

    schema = settings.setting_schema(Settings, "sweep")
    assert schema["enum"] == ["delete", "report", "", None]
    assert value_for(schema, "sweep") == "report"


@pytest.mark.parametrize("service", SERVICES)
def test_every_field_of_the_settings_is_somewhere(service: ServiceName) -> None:
    everywhere = {*settings.names(service), *settings.secrets(service), *settings.ELSEWHERE}
    fields = {field.name for field in msgspec.structs.fields(settings.SETTINGS[service])}
    assert fields <= everywhere
    found = environment(service, objects(namespaces={"jobs": "research"}, ports={"http": 8123, "metrics": 9123}))
    for name, value in {"namespace": "research", "http_port": "8123", "metrics_port": "9123"}.items():
        if name in fields:
            assert found[f"GPUDEV_{name.upper()}"] == value
    for name in settings.secrets(service):
        source = found[f"GPUDEV_{name.upper()}"]["secretKeyRef"]
        assert source == {"name": f"gpudev-{service}", "key": f"GPUDEV_{name.upper()}"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_setting_that_sounds_secret_is_one(service: ServiceName) -> None:
    """Or is named here, with the reason."""
    plain = {
        "login_limit_per_minute_access_key",  # a number
        "failed_keys_per_minute",  # a number
        "key_ttl_hours",  # a number
    }
    sounding = [name for name in settings.names(service) if set(name.split("_")) & {"key", "keys", "token", "password"}]
    assert set(sounding) <= plain


def test_a_setting_of_every_service_can_be_said_once() -> None:
    made = objects(settings={"log_level": "debug"}, services={"jobs": {"settings": {"log_level": "error"}}})
    found = {service: environment(service, made)["GPUDEV_LOG_LEVEL"] for service in SERVICES}
    assert found == {"auth": "debug", "jobs": "error", "disks": "debug", "capacity": "debug"}


def test_each_service_reads_the_credentials_for_nats_of_its_own_secret() -> None:
    for enabled in (False, True):
        made = objects(nats={"credentials": enabled}, services={"jobs": {"secret": "of-jobs"}})
        for service in SERVICES:
            pod = dict(pod_templates(made))[f"Deployment gpudev-{service}"]["spec"]
            (container,) = pod["containers"]
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert ("nats" in volumes) is enabled
            file = environment(service, made).get("GPUDEV_NATS_CREDENTIALS_FILE")
            assert file == ("/etc/gpudev/nats/nats.creds" if enabled else None)
            if enabled:
                secret = volumes["nats"]["secret"]
                assert secret["secretName"] == ("of-jobs" if service == "jobs" else f"gpudev-{service}")
                assert secret["items"] == [{"key": "nats.creds", "path": "nats.creds"}]
                assert {"name": "nats", "mountPath": "/etc/gpudev/nats", "readOnly": True} in container["volumeMounts"]
                assert "subPath" not in str(container["volumeMounts"])


def test_capacity_counts_with_what_jobs_is_set_to() -> None:
    assert {"cpu_per_gpu", "gpu_resource", "grace_seconds", "max_gpus_per_user"} <= set(settings.of_jobs())
    assert not {"log_level", "resync_seconds"} & set(settings.of_jobs())
    jobs = {"cpu_per_gpu": 8, "grace_seconds": 60, "log_level": "debug"}
    found = environment("capacity", objects(services={"jobs": {"settings": jobs}}))
    assert (found["GPUDEV_CPU_PER_GPU"], found["GPUDEV_GRACE_SECONDS"]) == ("8", "60")
    assert "GPUDEV_LOG_LEVEL" not in found
    both = {"jobs": {"settings": jobs}, "capacity": {"settings": {"cpu_per_gpu": 9}}}
    assert environment("capacity", objects(services=both))["GPUDEV_CPU_PER_GPU"] == "9"


@pytest.mark.parametrize("major", [3, 4])
def test_capabilities_that_the_namespace_does_not_allow_are_refused_before_any_job_is(major: int) -> None:
    def rendered(capabilities: str, level: str) -> str:
        settings = {"jobs": {"settings": {"extra_capabilities": capabilities}}}
        values = {"services": settings, "namespaces": {"podSecurity": {"jobs": level}}}
        return generate.render("--skip-schema-validation", major=major, values=values)

    assert rendered("IPC_LOCK,SYS_PTRACE", "privileged")
    assert rendered("MKNOD, SETPCAP", "baseline")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered("MKNOD, IPC_LOCK", "baseline")
    assert "IPC_LOCK needs namespaces.podSecurity.jobs=privileged" in refused.value.stderr


def test_null_and_empty_are_the_default_of_the_code() -> None:
    made = objects(settings={"log_level": None}, services={"jobs": {"settings": {"user_email_domain": ""}}})
    assert "GPUDEV_LOG_LEVEL" not in environment("jobs", made)
    assert "GPUDEV_USER_EMAIL_DOMAIN" not in environment("jobs", made)


def test_false_and_zero_are_values() -> None:
    made = objects(services={"jobs": {"settings": {"disabled_user_grace_seconds": 0}}})
    assert environment("jobs", made)["GPUDEV_DISABLED_USER_GRACE_SECONDS"] == "0"


@pytest.mark.parametrize("major", [3, 4])
def test_a_time_of_weeks_stays_a_whole_number(major: int) -> None:
    weeks = 1_209_600
    toleration = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": weeks}
    made = objects(
        major=major,
        migrations={"hook": False, "ttlSecondsAfterFinished": weeks, "activeDeadlineSeconds": weeks},
        pods={"terminationGracePeriodSeconds": weeks, "tolerations": [toleration]},
    )
    job = next(iter(of_kind("Job", made).values()))
    pod = of_kind("Deployment", made)["gpudev-auth"]["spec"]["template"]["spec"]
    said = [
        job["spec"]["ttlSecondsAfterFinished"],
        job["spec"]["activeDeadlineSeconds"],
        pod["terminationGracePeriodSeconds"],
        pod["tolerations"][0]["tolerationSeconds"],
    ]
    assert json.dumps(said) == json.dumps([weeks] * 4)


def test_the_defaults_pass_their_schema() -> None:
    assert jsonschema_rs.Draft7Validator(json.loads(generate.schema())).is_valid(DEFAULTS)


def test_a_misspelt_value_is_refused_wherever_it_is() -> None:
    validator = jsonschema_rs.Draft7Validator(json.loads(generate.schema()))
    places = list(closed_places(DEFAULTS))
    assert len(places) > 40
    for path in places:
        values = json.loads(json.dumps(DEFAULTS))
        place = values
        for key in path:
            place = place[key]
        place["mispelt"] = 1
        faults = [error.message for error in validator.iter_errors(values)]
        assert any("mispelt" in fault for fault in faults), path


def closed_places(values: Any, path: tuple[Any, ...] = ()) -> Any:
    """Paths of the mappings whose keys are not the users' own."""
    if isinstance(values, list):
        for index, value in enumerate(values):
            yield from closed_places(value, (*path, index))
    elif isinstance(values, dict) and not {*path} & {*OPEN, "matchLabels", "matchExpressions"}:
        yield path
        for key, value in values.items():
            yield from closed_places(value, (*path, key))


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"replicas": 3}, "replicas"),
        ({"services": {"auth": {"replicsa": 3}}}, "replicsa"),
        ({"services": {"jobs": {"settings": {"max_totl_hours": 3}}}}, "max_totl_hours"),
        ({"services": {"disks": {"settings": {"max_total_hours": 3}}}}, "max_total_hours"),
        ({"settings": {"log_levle": "debug"}}, "log_levle"),
        ({"services": {"queue": {}}}, "queue"),
        ({"services": {"auth": {"settings": {"key_ttl_hours": 0}}}}, "key_ttl_hours"),
        ({"services": {"auth": {"settings": {"key_ttl_hours": "two"}}}}, "key_ttl_hours"),
        ({"services": {"auth": {"settings": {"key_hash_key": base64.b64encode(bytes(32)).decode()}}}}, "key_hash_key"),
        ({"settings": {"database_url": "postgresql://gpudev_auth:hidden@db/gpudev"}}, "database_url"),
        ({"services": {"jobs": {"settings": {"namespace": "elsewhere"}}}}, "namespace"),
        ({"services": {"auth": {"resources": {"limit": {"memory": "1Gi"}}}}}, "limit"),
        ({"pods": {"tolerations": [{"keys": "gpu"}]}}, "keys"),
        ({"networkPolicies": {"ingressFrom": [{"namespaceSelctor": {}}]}}, "namespaceSelctor"),
        ({"networkPolicies": {"jobs": {"egress": [{"port": 443}]}}}, "port"),
        ({"networkPolicies": {"jobs": {"internet": [{"cidr": "0.0.0.0/0", "expect": []}]}}}, "expect"),
        ({"ingress": {"gateways": [{"name": "public", "section": "https"}]}}, "section"),
    ],
)
def test_helm_refuses_by_name(major: int, values: dict[str, Any], word: str) -> None:
    assert word in refusal(values, major)


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("name", ["GPUDEV_KEY_HASH_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD"])
def test_nothing_secret_can_be_said_past_the_schema(major: int, name: str) -> None:
    said = refusal({"services": {"auth": {"env": [{"name": name, "value": "hidden"}]}}}, major)
    assert "env" in said
    assert "hidden" not in said


def test_other_variables_can_be_said_and_secret_ones_be_referred_to() -> None:
    reference = {"secretKeyRef": {"name": "aws", "key": "key"}}
    own = [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": reference},
    ]
    found = environment("disks", objects(services={"disks": {"env": own}}))
    assert found["HTTPS_PROXY"] == "http://proxy:3128"
    assert found["AWS_SECRET_ACCESS_KEY"] == reference


def test_every_setting_is_explained() -> None:
    for service in SERVICES:
        for name, schema in settings.service_schema(service)["properties"].items():
            assert len(schema["description"]) > 10, (service, name)

"""What containers do: commands, environment, volumes, probes, restarts, logs. They have to run for real."""

import base64
import time
from typing import Any

import httpx
import pytest
from kubernetes.client import ApiException, CoreV1Api, V1Pod
from kubernetes.watch import Watch

from tests.cluster.objects import IMAGE, pod, shell
from tests.cluster.test_exec import run as execute
from tests.cluster.waiting import eventually, gone, pod_in_phase, pod_when
from tests.support.promises import promised

pytestmark = pytest.mark.needs_containers


def log(core: CoreV1Api, made: V1Pod, **query: Any) -> str:
    answer = core.read_namespaced_pod_log(made.metadata.name, made.metadata.namespace, _preload_content=False, **query)
    return bytes(answer.data).decode()


def run(core: CoreV1Api, namespace: str, body: dict[str, Any], phase: str = "Succeeded") -> V1Pod:
    return pod_in_phase(core, core.create_namespaced_pod(namespace, body), phase)


def waiting_reason(found: V1Pod) -> str:
    statuses = found.status.container_statuses or []
    return str(statuses[0].state.waiting.reason) if statuses and statuses[0].state.waiting else ""


def test_a_command_that_succeeds_completes_the_pod(core: CoreV1Api, namespace: str) -> None:
    found = run(core, namespace, shell("echo out; echo err >&2"))
    ended = found.status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (0, "Completed")
    assert ended.started_at <= ended.finished_at
    assert sorted(log(core, found).splitlines()) == ["err", "out"]
    assert {c.type: c.reason for c in found.status.conditions}["Ready"] == "PodCompleted"


def test_an_exit_code_is_kept(core: CoreV1Api, namespace: str) -> None:
    found = run(core, namespace, shell("exit 7"), "Failed")
    ended = found.status.container_statuses[0].state.terminated
    assert (ended.exit_code, ended.reason) == (7, "Error")


def test_the_last_words_of_a_container_are_in_its_status(core: CoreV1Api, namespace: str) -> None:
    script = 'printf "the last words" > "${GPUDEV_ROOT:-}/dev/termination-log"; exit 1'
    found = run(core, namespace, shell(script), "Failed")
    assert found.status.container_statuses[0].state.terminated.message == "the last words"


def test_a_command_killed_by_a_signal_is_128_and_the_signal(core: CoreV1Api, namespace: str) -> None:
    # `$$` is an escaped dollar in a command, hence four; not the first process: that one ignores signals
    found = run(core, namespace, shell("sh -c 'kill -9 $$$$'; exit $?"), "Failed")
    assert found.status.container_statuses[0].state.terminated.exit_code == 137


def test_a_command_that_is_not_there_is_a_start_error(core: CoreV1Api, namespace: str) -> None:
    found = run(core, namespace, pod(command=["/no/such/program"], restartPolicy="Never"), "Failed")
    ended = found.status.container_statuses[0].state.terminated
    assert ended.exit_code in {127, 128}
    assert "/no/such/program" in ended.message


def test_the_environment_is_the_containers_own(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_secret(namespace, {"metadata": {"name": "s"}, "stringData": {"KEY": "secret", "OTHER": "o"}})
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"setting": "on"}})
    env = [
        {"name": "PLAIN", "value": "a"},
        {"name": "DERIVED", "value": "$(PLAIN)b $$(PLAIN) $(UNKNOWN)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "KEY"}}},
        {"name": "SETTING", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "setting"}}},
        {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}},
        {"name": "MY_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "MY_LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['l']"}}},
        {"name": "MY_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container = {"env": env, "envFrom": [{"prefix": "FROM_", "secretRef": {"name": "s"}}]}
    made = core.create_namespaced_pod(namespace, shell("env", container=container, metadata={"labels": {"l": "v"}}))
    found = pod_in_phase(core, made, "Succeeded")
    lines = dict(line.partition("=")[::2] for line in log(core, found).splitlines())
    assert lines["DERIVED"] == "ab $(PLAIN) $(UNKNOWN)"
    assert (lines["SECRET"], lines["SETTING"], lines["FROM_OTHER"]) == ("secret", "on", "o")
    assert (lines["MY_NAME"], lines["MY_LABEL"]) == (found.metadata.name, "v")
    assert lines["MY_IP"] == found.status.pod_ip
    assert lines["HOSTNAME"] == found.metadata.name
    assert "MISSING" not in lines
    # nothing of whoever started the cluster
    assert not {"USER", "PYTHONPATH", "PYTEST_CURRENT_TEST", "VIRTUAL_ENV"} & lines.keys()


def test_variables_are_expanded_in_command_and_arguments(core: CoreV1Api, namespace: str) -> None:
    env = [{"name": "A", "value": "x y"}]
    args = ["$(A)", "$$(A)", "$(B)", "$$$(A)", "$(echo $(A))", "$(A$$)", "$($(A)", "$A $ $$", "'$(A)'"]
    body = pod(command=["printf", "%s|\\n"], container={"args": args, "env": env}, restartPolicy="Never")
    assert log(core, run(core, namespace, body)).splitlines() == [
        "x y|",
        "$(A)|",
        "$(B)|",
        "$x y|",
        "$(echo $(A))|",
        "$(A$$)|",
        "$($(A)|",
        "$A $ $|",
        "'x y'|",
    ]


def test_a_missing_secret_holds_the_container_until_it_is_there(core: CoreV1Api, namespace: str) -> None:
    env = [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]
    made = core.create_namespaced_pod(namespace, shell('echo "$S"', container={"env": env}))

    def misses_it(found: V1Pod) -> bool:
        # a busy kubelet says first that it has not read any Secret yet
        if waiting_reason(found) != "CreateContainerConfigError":
            return False
        return 'secret "late" not found' in found.status.container_statuses[0].state.waiting.message

    pod_when(core, made, misses_it, "an error that names the Secret")
    core.create_namespaced_secret(namespace, {"metadata": {"name": "late"}, "stringData": {"k": "v"}})
    assert log(core, pod_in_phase(core, made, "Succeeded")) == "v\n"


def test_an_image_that_cannot_be_pulled_backs_off(core: CoreV1Api, namespace: str) -> None:
    image = {"image": "127.0.0.1:1/does-not-exist:1"}
    made = core.create_namespaced_pod(namespace, pod(container=image))
    # a watch misses none, however short it is
    where = {"namespace": namespace, "resource_version": made.metadata.resource_version, "timeout_seconds": 60}
    told: list[str] = []
    for event in Watch().stream(core.list_namespaced_pod, **where):
        found = event["object"]
        told += [waiting_reason(found)] if waiting_reason(found) else []
        if "ErrImagePull" in told and told[-1] == "ImagePullBackOff":
            break
    assert told[-1:] == ["ImagePullBackOff"], told
    assert found.status.phase == "Pending"


def test_an_image_reference_that_is_malformed_is_named_so(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, pod(container={"image": "Not A Reference"}))
    pod_when(core, made, lambda p: waiting_reason(p) == "InvalidImageName", "InvalidImageName")


def test_init_containers_run_in_order_before_the_others(core: CoreV1Api, namespace: str) -> None:
    mounts = [{"name": "shared", "mountPath": "/shared"}]

    def container(name: str, script: str) -> dict[str, Any]:
        command = ["sh", "-c", f'cd "${{GPUDEV_ROOT:-}}/shared" && {script}']
        return {"name": name, "image": IMAGE, "command": command, "volumeMounts": mounts}

    body = shell("")
    body["spec"] |= {
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "initContainers": [container("one", "echo 1 >> order"), container("two", "echo 2 >> order")],
        "containers": [container("main", "echo 3 >> order; cat order")],
    }
    found = run(core, namespace, body)
    assert log(core, found) == "1\n2\n3\n"
    assert [s.state.terminated.exit_code for s in found.status.init_container_statuses] == [0, 0]


def test_an_init_container_that_fails_fails_the_pod(core: CoreV1Api, namespace: str) -> None:
    init = {"name": "init", "image": IMAGE, "command": ["sh", "-c", "exit 3"]}
    found = run(core, namespace, shell("echo never", initContainers=[init]), "Failed")
    assert found.status.init_container_statuses[0].state.terminated.exit_code == 3
    assert found.status.container_statuses[0].state.waiting.reason == "PodInitializing"
    assert {c.type: c.status for c in found.status.conditions}["Initialized"] == "False"


def test_secrets_are_mounted_as_files(core: CoreV1Api, namespace: str) -> None:
    core.create_namespaced_secret(
        namespace, {"metadata": {"name": "s"}, "data": {"k": base64.b64encode(b"v").decode()}}
    )
    body = shell('cat "${GPUDEV_ROOT:-}/etc/secret/renamed"')
    body["spec"]["containers"][0]["volumeMounts"] = [{"name": "s", "mountPath": "/etc/secret", "readOnly": True}]
    volume = {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "renamed"}]}}
    body["spec"]["volumes"] = [volume]
    assert log(core, run(core, namespace, body)).strip() == "v"


def test_a_crashing_container_is_restarted_with_back_off(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, shell("echo run; exit 1", restartPolicy="Always"))
    found = pod_when(core, made, lambda p: waiting_reason(p) == "CrashLoopBackOff", "CrashLoopBackOff")
    status = found.status.container_statuses[0]
    assert status.restart_count >= 1
    assert status.last_state.terminated.exit_code == 1
    assert found.status.phase == "Running"
    eventually(lambda: _logged(core, made, "run\n", previous=True), "what the instance before has said")


def test_on_failure_restarts_until_success(core: CoreV1Api, namespace: str) -> None:
    script = 'cd "${GPUDEV_ROOT:-}/v"; test -e again && exit 0; touch again; exit 1'
    body = shell(script, restartPolicy="OnFailure", volumes=[{"name": "v", "emptyDir": {}}])
    body["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    found = run(core, namespace, body)
    assert found.status.container_statuses[0].restart_count == 1


def test_an_exec_probe_decides_on_readiness(core: CoreV1Api, namespace: str) -> None:
    probe = {"exec": {"command": ["test", "-e", "ready"]}, "periodSeconds": 1}
    body = pod(command=["sleep", "600"])
    body["spec"]["containers"][0] |= {"readinessProbe": {**probe, "failureThreshold": 1}}
    made = core.create_namespaced_pod(namespace, body)

    def ready(found: V1Pod) -> bool:
        return {c.type: c.status for c in found.status.conditions or []}.get("Ready") == "True"

    found = pod_in_phase(core, made, "Running")
    assert not ready(found)
    assert execute(core, made, "touch ready")[2] == 0
    pod_when(core, made, ready, "ready")
    assert execute(core, made, "rm ready")[2] == 0
    found = pod_when(core, made, lambda p: not ready(p), "unready again")
    assert found.status.phase == "Running"
    assert found.status.container_statuses[0].restart_count == 0


def test_a_liveness_probe_that_fails_restarts_the_container(core: CoreV1Api, namespace: str) -> None:
    body = pod(command=["sleep", "60"])
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    body["spec"]["containers"][0]["livenessProbe"] = probe
    made = core.create_namespaced_pod(namespace, body)
    pod_when(core, made, _restarted, "restart")


def test_a_stopped_container_may_clean_up_within_its_grace(core: CoreV1Api, namespace: str) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    made = core.create_namespaced_pod(namespace, shell(script, terminationGracePeriodSeconds=80))
    eventually(lambda: _logged(core, made, "up"), "trap set")
    answer = core.read_namespaced_pod_log(made.metadata.name, namespace, follow=True, _preload_content=False)
    core.delete_namespaced_pod(made.metadata.name, namespace)
    # a real node may end the stream with an error of its runtime
    assert "bye" in answer.read().decode().splitlines()
    gone(lambda: core.read_namespaced_pod(made.metadata.name, namespace), "pod, long before its grace is over", 40)


def test_a_container_that_ignores_the_stop_is_killed_after_its_grace(core: CoreV1Api, namespace: str) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    made = core.create_namespaced_pod(namespace, shell(script, terminationGracePeriodSeconds=2))
    eventually(lambda: _logged(core, made, "up"), "trap set")
    began = time.monotonic()
    held = core.delete_namespaced_pod(made.metadata.name, namespace)
    assert held.metadata.deletion_timestamp is not None
    # a node takes its time to clean up, but less than the 30 s of grace that a pod has by default
    gone(lambda: core.read_namespaced_pod(made.metadata.name, namespace), "pod", 28)
    assert time.monotonic() - began > 1


def test_a_pod_over_its_deadline_fails(core: CoreV1Api, namespace: str) -> None:
    found = run(core, namespace, shell("sleep 60", activeDeadlineSeconds=1), "Failed")
    assert found.status.reason == "DeadlineExceeded"


def test_a_log_is_cut_as_asked(core: CoreV1Api, namespace: str) -> None:
    found = run(core, namespace, shell("for i in 1 2 3 4 5; do echo line $i; done"))
    assert log(core, found, tail_lines=2) == "line 4\nline 5\n"
    assert log(core, found, limit_bytes=6) == "line 1"
    assert log(core, found, since_seconds=1000).count("\n") == 5
    stamped = log(core, found, timestamps=True).splitlines()
    assert all(line.split(" ", 1)[0].endswith("Z") for line in stamped)


def test_each_line_of_a_log_has_its_own_time_in_the_order_of_writing(core: CoreV1Api, namespace: str) -> None:
    # of two streams that have something at once, which is read first is nobody's promise
    wait = "until [ -e {} ]; do sleep 0.05; done"
    script = f"printf 'a\\nb\\nc\\nd\\n'; {wait.format('one')}; echo e >&2; {wait.format('two')}; echo f"
    made = pod_in_phase(core, core.create_namespaced_pod(namespace, shell(script)), "Running")
    for text, gate in (("d\n", "one"), ("e\n", "two")):
        eventually(lambda text=text: _logged(core, made, text), f"{text!r} in the log")
        assert execute(core, made, f"touch {gate}")[2] == 0
    found = pod_in_phase(core, made, "Succeeded")
    stamps, texts = zip(*(line.split(" ", 1) for line in log(core, found, timestamps=True).splitlines()), strict=True)
    moments = [moment(stamp) for stamp in stamps]
    assert texts == ("a", "b", "c", "d", "e", "f")
    assert sorted(set(moments)) == moments


def moment(stamp: str) -> tuple[str, str]:
    """Second and nanosecond, in the order of time. A kubelet may leave out zeros at the end of a fraction."""
    second, _, fraction = stamp.removesuffix("Z").partition(".")
    return second, fraction.ljust(9, "0")


def test_times_are_in_order_however_many_zeros_are_left_out() -> None:
    stamps = ["18:29:59.999999999Z", "18:30:00Z", "18:30:00.00000001Z", "18:30:00.000000011Z", "18:30:00.1Z"]
    assert sorted(stamps, key=moment) == stamps


def test_a_log_ends_as_it_was_written(core: CoreV1Api, namespace: str) -> None:
    assert log(core, run(core, namespace, shell(r"printf 'whole\nbroken off'"))) == "whole\nbroken off"
    assert log(core, run(core, namespace, shell(r"printf '\n\n'"))) == "\n\n"


def test_a_long_line_is_one_line(core: CoreV1Api, namespace: str) -> None:
    script = "head -c 50000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo; echo end"
    lines = log(core, run(core, namespace, shell(script))).splitlines()
    assert lines == ["x" * 50000, "y" * 16384, "end"]


@pytest.mark.parametrize(("written", "told"), [(20479, 0), (20480, 16384)])
def test_of_a_line_without_an_end_only_what_is_long_is_told(
    core: CoreV1Api, namespace: str, written: int, told: int
) -> None:
    script = f"head -c {written} /dev/zero | tr '\\0' x; sleep 1; echo now >&2; exec sleep 600"
    made = pod_in_phase(core, core.create_namespaced_pod(namespace, shell(script)), "Running")
    eventually(lambda: log(core, made) in {"x" * told + "now\n", "now\n" + "x" * told}, "the log")


def test_the_beginning_of_a_log_is_asked_for_in_whole_seconds(
    core: CoreV1Api, raw: httpx.Client, namespace: str
) -> None:
    found = run(core, namespace, shell("echo here"))
    second = log(core, found, timestamps=True)[: len("2000-01-01T00:00:00")]
    path = f"/api/v1/namespaces/{namespace}/pods/{found.metadata.name}/log"
    assert raw.get(path, params={"sinceTime": f"{second}.999999999Z"}).text == "here\n"


def test_a_log_is_followed_to_its_end(core: CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_pod(namespace, shell("echo one; sleep 1; echo two"))
    eventually(lambda: _logged(core, made, "one"), "first line")
    answer = core.read_namespaced_pod_log(made.metadata.name, namespace, follow=True, _preload_content=False)
    assert answer.read() == b"one\ntwo\n"


def test_the_log_of_a_container_that_waits_is_a_bad_request(core: CoreV1Api, namespace: str) -> None:
    env = [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "none", "key": "KEY"}}}]
    made = core.create_namespaced_pod(namespace, shell("true", container={"env": env}))
    pod_when(core, made, lambda found: waiting_reason(found) == "CreateContainerConfigError", "it waits")
    with pytest.raises(ApiException) as caught:
        log(core, made)
    assert caught.value.status == 400


def test_the_log_of_a_pod_without_a_node_is_empty(core: CoreV1Api, namespace: str) -> None:
    assert log(core, core.create_namespaced_pod(namespace, pod(nodeSelector={"no": "where"}))) == ""


def test_processes_left_behind_end_with_the_container(core: CoreV1Api, namespace: str) -> None:
    # the background process would keep the log open, and the follower waiting, for a minute
    found = run(core, namespace, shell("setsid sleep 60 & echo started; exit 0"))
    with promised(30):
        assert log(core, found, follow=True) == "started\n"


def _restarted(found: V1Pod) -> bool:
    return any(status.restart_count for status in found.status.container_statuses or [])


def _logged(core: CoreV1Api, made: V1Pod, text: str, **query: Any) -> bool:
    try:
        return text in log(core, made, **query)
    except ApiException as error:
        if error.status not in {400, 404}:  # 404: a busy kubelet has not heard of the pod
            raise
        return False

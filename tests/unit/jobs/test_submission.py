"""What a submission may be."""

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.client_env_vars import label_of
from services.jobs.domain.image import is_image_reference
from services.jobs.domain.job_id import id_range
from services.jobs.domain.submission import Submission, read_submission
from services.jobs.schemas.requests import SubmitBody, SubmitRequest
from shared.errors import InvalidInput, Problem

ID = 0x3F2A000000004000800000000000000A
GOOD: dict[str, Any] = {"image": "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime", "instance_type": "p5.48xlarge"}


def decode(body: Any) -> Submission:
    decoder = SubmitBody.__new__(SubmitBody)
    decoder.model_type = SubmitRequest
    return read_submission(msgspec.structs.asdict(decoder.decode_bytes(json.dumps(body).encode())))


def problems(**changes: Any) -> set[tuple[str | int, ...]]:
    with pytest.raises(InvalidInput) as caught:
        decode({**GOOD, **changes})
    return {problem.loc[1:] for problem in caught.value.problems}


def test_the_least_that_is_needed_gets_the_whole_instance_for_an_hour() -> None:
    submission = decode(GOOD)
    assert (submission.gpu_count, submission.gpu_type, submission.duration_seconds) == (8, "h100", 3600)
    assert decode({**GOOD, "instance_type": "g6.12xlarge"}).gpu_count == 4


@pytest.mark.parametrize("hours", [5 / 60, 0.0834, 0.5, 1, 4, 72, 72.0])
def test_durations_within_the_bounds(hours: float) -> None:
    assert decode({**GOOD, "duration_hours": hours}).duration_seconds == round(hours * 3600)


@pytest.mark.parametrize(
    "hours", [0, -1, 0.08, 72.001, 73, 1e300, 10**400, True, "4", None, [], {}, float("nan"), float("inf")]
)
def test_durations_out_of_bounds_or_no_numbers_are_refused(hours: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode({**GOOD, "duration_hours": hours})
    assert {problem.loc[0] for problem in caught.value.problems} == {"body"}


@pytest.mark.parametrize("field", ["gpu_count", "disk_size_gb"])
@pytest.mark.parametrize("value", [0, -1, 3, 16, 1.5, 10**30, True, "4", [], {}])
def test_whole_numbers_out_of_bounds_or_no_numbers_are_refused(field: str, value: Any) -> None:
    changes: dict[str, Any] = {field: value, "disk_name": "d"}
    if (field, value) == ("disk_size_gb", 16):
        value = changes[field] = 9
    assert problems(**changes) == {(field,)}


@pytest.mark.parametrize(("instance", "count"), [("g6.12xlarge", 8), ("p5.48xlarge", 3), ("p4d.24xlarge", 16)])
def test_a_count_that_the_instance_has_not_is_refused(instance: str, count: int) -> None:
    assert ("gpu_count",) in problems(instance_type=instance, gpu_count=count)
    assert ("env_vars", "GPU_COUNT") in problems(instance_type=instance, env_vars={"GPU_COUNT": str(count)})


def test_a_disk_size_needs_a_disk() -> None:
    assert problems(disk_size_gb=100) == {("disk_size_gb",)}
    assert decode({**GOOD, "disk_size_gb": 100, "disk_name": "d"}).disk_size_gb == 100


def test_what_the_existing_client_says_in_env_vars_is_heard() -> None:
    env = {
        "GPU_TYPE": "H100",
        "GPU_COUNT": "2",
        "GITHUB_USER": "jeanschmidt",
        "JUPYTER_ENABLED": "true",
        "POD_NAME": "my-pod",
        "RESERVATION_ID": "3F2A0000-0000-4000-8000-000000000001",
        "MINE": "x",
    }
    submission = decode({**GOOD, "env_vars": env})
    assert (submission.gpu_count, submission.github_user, submission.name) == (2, "jeanschmidt", "my-pod")
    assert submission.jupyter_enabled
    assert submission.requested_id == UUID(env["RESERVATION_ID"])
    first_class = {"gpu_count": 4, "github_user": "other", "name": "named", "jupyter_enabled": False}
    won = decode({**GOOD, "env_vars": env, **first_class})
    assert (won.gpu_count, won.github_user, won.name, won.jupyter_enabled) == (4, "other", "named", False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GPU_TYPE", "a100"),
        ("GPU_TYPE", "h 100"),
        ("GPU_COUNT", "3"),
        ("GPU_COUNT", "0"),
        ("GPU_COUNT", "-2"),
        ("GPU_COUNT", "two"),
        ("GPU_COUNT", "٤"),
        ("GPU_COUNT", "2.5"),
        ("GITHUB_USER", "-a"),
        ("GITHUB_USER", "a--b"),
        ("GITHUB_USER", "@"),
        ("GITHUB_USER", "a" * 40),
        ("JUPYTER_ENABLED", "maybe"),
        ("JUPYTER_ENABLED", "2"),
        ("RESERVATION_ID", "x"),
        ("RESERVATION_ID", "a" * 31),
    ],
)
def test_what_the_existing_client_cannot_mean_is_refused(name: str, value: str) -> None:
    assert problems(env_vars={name: value}) == {("env_vars", name)}


@pytest.mark.parametrize(
    ("name", "value", "field", "meant"),
    [
        ("GPU_TYPE", " H100 ", "gpu_type", "h100"),
        ("GPU_TYPE", "", "gpu_type", "h100"),
        ("GPU_COUNT", "4 ", "gpu_count", 4),
        ("GPU_COUNT", "04", "gpu_count", 4),
        ("GPU_COUNT", "4.0", "gpu_count", 4),
        ("GPU_COUNT", "", "gpu_count", 8),
        ("GPU_COUNT", "\t", "gpu_count", 8),
        ("GITHUB_USER", "@jeanschmidt", "github_user", "jeanschmidt"),
        ("GITHUB_USER", " JeanSchmidt\n", "github_user", "JeanSchmidt"),
        ("GITHUB_USER", "", "github_user", None),
        ("JUPYTER_ENABLED", "True", "jupyter_enabled", True),
        ("JUPYTER_ENABLED", "TRUE ", "jupyter_enabled", True),
        ("JUPYTER_ENABLED", "1", "jupyter_enabled", True),
        ("JUPYTER_ENABLED", "yes", "jupyter_enabled", True),
        ("JUPYTER_ENABLED", "False", "jupyter_enabled", False),
        ("JUPYTER_ENABLED", "0", "jupyter_enabled", False),
        ("JUPYTER_ENABLED", "", "jupyter_enabled", False),
        ("POD_NAME", "my-pod", "name", "my-pod"),
        ("POD_NAME", "", "name", None),
        ("POD_NAME", "  ", "name", None),
        ("RESERVATION_ID", "3F2A0000-0000-4000-8000-00000000000A", "requested_id", UUID(int=ID)),
        ("RESERVATION_ID", " 3f2a0000-0000-4000-8000-00000000000a\n", "requested_id", UUID(int=ID)),
        ("RESERVATION_ID", "3f2a000000004000800000000000000a", "requested_id", UUID(int=ID)),
        ("RESERVATION_ID", "", "requested_id", None),
    ],
)
def test_what_the_existing_client_means_is_understood(name: str, value: str, field: str, meant: object) -> None:
    assert getattr(decode({**GOOD, "env_vars": {name: value}}), field) == meant


def test_the_environment_keeps_what_the_existing_client_wrote() -> None:
    env = {"POD_NAME": "mn - Node 1/2", "GPU_COUNT": "4 ", "GITHUB_USER": "@a"}
    assert decode({**GOOD, "env_vars": env}).env_vars == env


@pytest.mark.parametrize(
    "text", ["mn - Node 1/2", "Upper", "a\n", "é", "節點", "---", "x" * 64, "x" * 9000, "a---b", "-a"]
)
def test_a_name_of_free_text_becomes_a_label(text: str) -> None:
    name = decode({**GOOD, "env_vars": {"POD_NAME": text}}).name
    assert name is not None
    assert decode({**GOOD, "name": name}).name == name, "a name that the field would take"


def test_a_label_can_be_read() -> None:
    name = decode({**GOOD, "env_vars": {"POD_NAME": "mn - Node 1/2"}}).name
    assert str(name).startswith("mn-node-1-2---")


@given(st.lists(st.text(alphabet="aA-_ /é", min_size=1, max_size=6), unique=True, min_size=2, max_size=30))
def test_different_texts_have_different_labels(texts: list[str]) -> None:
    labels = [label_of(text) for text in texts]
    assert len(set(labels)) == len(labels)
    # what was made is made differently once more: none can be had by asking for it
    assert not {label_of(label) for label in labels if "---" in label} & set(labels)


@pytest.mark.parametrize("name", ["mn - Node 1/2", "Upper", "a\n", "", "x" * 64, "-a"])
def test_the_name_field_stays_strict(name: str) -> None:
    assert problems(name=name) == {("name",)}


@pytest.mark.parametrize(
    "env",
    [
        {"9A": "x"},
        {"A-B": "x"},
        {"": "x"},
        {"A\n": "x"},
        {"A": 1},
        {"A": "nul\0"},
        {"A": "x" * 65537},
        {f"A{n}": "" for n in range(101)},
        {f"A{n}": "x" * 7000 for n in range(10)},
        [],
        "A=1",
    ],
)
def test_bad_environments_are_refused_without_their_values(env: Any) -> None:
    assert {loc[0] for loc in problems(env_vars=env)} == {"env_vars"}


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_REQUIRE_CUDA",
        "NVIDIA_DISABLE_REQUIRE",
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "NVIDIA_IMEX_CHANNELS",
        "NVIDIA_GDS",
        "NVIDIA_MOFED",
        "NVIDIA_GDRCOPY",
        "NVIDIA_NVSWITCH",
        "NVIDIA_CTK_DEBUG",
        "NVIDIA_CONTAINER_X",
        "DOCKER_RESOURCE_GPU",
        "GPUDEV_ROOT",
        "GPUDEV_",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_PORT_443_TCP",
    ],
)
def test_names_of_the_platform_are_refused_by_name(name: str) -> None:
    assert problems(env_vars={name: "all", "MINE": "x"}) == {("env_vars", name)}


@pytest.mark.parametrize(
    "name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "NVIDIA", "nvidia_visible_devices", "HOME"]
)
def test_names_of_programs_are_not_the_platforms(name: str) -> None:
    assert decode({**GOOD, "env_vars": {name: "x"}}).env_vars == {name: "x"}


def test_a_variables_name_is_as_long_as_kubernetes_has_room_for() -> None:
    assert decode({**GOOD, "env_vars": {"A" * 253: "x"}}).env_vars
    assert {loc[0] for loc in problems(env_vars={"A" * 254: "x"})} == {"env_vars"}


@pytest.mark.parametrize("path", ["/", "/home/dev/a b", "/data/$(A)/$$", "/a/...", "/" + "x" * 1023, "//a", "/a/"])
def test_directories_to_start_in(path: str) -> None:
    assert decode({**GOOD, "working_dir": path}).working_dir == path


@pytest.mark.parametrize(
    "path", ["", "a", "./a", "~", "/a/../b", "/..", "/a\0", "/a\nb", "/" + "x" * 1024, "/" + "é" * 512, 1, []]
)
def test_what_is_no_directory_to_start_in(path: Any) -> None:
    assert problems(working_dir=path) == {("working_dir",)}


def test_a_request_without_a_directory_is_the_same_as_before_there_were_any() -> None:
    assert b"working_dir" not in decode(GOOD).canonical()
    assert b"working_dir" in decode({**GOOD, "working_dir": "/a"}).canonical()


@pytest.mark.parametrize("command", ["echo a\r\necho b", "a\r", "echo 1\n\necho '\r'"])
def test_a_carriage_return_in_a_command_is_refused_with_its_line(command: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode({**GOOD, "command": command})
    (problem,) = caught.value.problems
    assert problem.loc == ("body", "command")
    assert problem.msg.startswith(f"Line {command[: command.index(chr(13))].count(chr(10)) + 1} has a carriage return")


@pytest.mark.parametrize("command", ["", "a\0b", "\x1b[0m", "x" * 16385, "é" * 8193])
def test_bad_commands_are_refused(command: str) -> None:
    assert problems(command=command) == {("command",)}


@pytest.mark.parametrize(
    "image",
    [
        "debian",
        "debian:12",
        "library/debian",
        "ghcr.io/org/name:v1.2",
        "localhost:5000/x",
        "registry:5000/a/b_c/d-e:T",
        "a@sha256:" + "0" * 64,
        "a:b@sha256:" + "f" * 64,
        "UPPER.host/name",
        "[::1]:5000/x",
        "a__b",
        "a--b",
    ],
)
def test_image_references(image: str) -> None:
    assert is_image_reference(image)


@pytest.mark.parametrize(
    "image",
    [
        "",
        " ",
        "Debian",
        "a b",
        "a:",
        "a@",
        "a:b:c",
        "-a",
        "a/",
        "/a",
        "a//b",
        "a:-b",
        "a:" + "t" * 129,
        "a_",
        "a___b",
        "a@sha256:" + "0" * 63,
        "a@sha256:" + "0" * 65,
        "0" * 64,
        "a\n",
        "a;rm -rf /",
        "$(id)",
        "a" * 513,
        "http://a/b",
        "ä",
    ],
)
def test_what_is_no_image_reference(image: str) -> None:
    assert not is_image_reference(image)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*SubmitRequest.__struct_fields__, "x"]), JSON))
def test_any_body_is_either_taken_or_refused_with_places(changes: dict[str, Any]) -> None:
    try:
        submission = decode({**GOOD, **changes})
    except InvalidInput as error:
        places = {problem.loc[0] for problem in error.problems}
    else:
        places = {"body"}
        assert 300 <= submission.duration_seconds <= 72 * 3600
        assert submission.gpu_count in {1, 2, 4, 8}
    assert places == {"body"}


@given(st.uuids(), st.integers(8, 36))
def test_every_beginning_of_an_id_covers_the_id(job_id: UUID, length: int) -> None:
    found = id_range(str(job_id)[:length])
    assert found is not None
    assert found[0] <= job_id <= found[1]
    assert (length == 36) <= (found[0] == found[1])


@given(st.text(alphabet="0123456789abcdefABCDEF-%_gx\n", max_size=40))
def test_a_range_holds_only_ids_that_begin_like_it(text: str) -> None:
    found = id_range(text)
    if found is not None:
        assert all(str(end).startswith(text.lower()) for end in found)


def test_text_that_is_too_short_is_no_beginning() -> None:
    assert id_range("abcdef0") is None
    assert id_range("abcdef01") is not None


def refusal(**changes: Any) -> list[Problem]:
    with pytest.raises(InvalidInput) as caught:
        decode({**GOOD, **changes})
    return list(caught.value.problems)


def test_a_bound_is_told_in_one_sentence_of_the_users_terms() -> None:
    too_short = {refusal(duration_hours=hours)[0].msg for hours in (-1.7e308, -1, 0, 1e-9, 0.01)}
    assert too_short == {"Must be at least 5 minutes (0.0834 hours)"}
    assert refusal(duration_hours=73)[0].msg == "Must be at most 72 hours"
    assert refusal(disk_name="d", disk_size_gb=1)[0].msg == "Must be at least 10 GB"
    assert refusal(gpu_count=0)[0].msg == refusal(gpu_count=3)[0].msg == refusal(gpu_count=9)[0].msg
    assert refusal(command="")[0].msg == "Must not be empty"


def test_problems_repeat_the_value_but_nothing_that_may_be_a_secret() -> None:
    found = {problem.loc: problem.input for problem in refusal(duration_hours=0.01, gpu_count="4", image="no image")}
    assert found == {("body", "duration_hours"): 0.01, ("body", "gpu_count"): "4", ("body", "image"): "no image"}

    secret = "wandb-0123456789"
    told = refusal(env_vars={"A": "b\x00" + secret, "9": secret}, env_var={"K": secret}, image=1)
    assert len(told) == 4
    assert secret not in msgspec.json.encode(told).decode()
    assert refusal(env_vars=secret)[0].input is msgspec.UNSET


def test_what_is_missing_shows_the_body_without_what_may_be_secret() -> None:
    decoder = SubmitBody.__new__(SubmitBody)
    decoder.model_type = SubmitRequest
    body = {"instance_type": "p5.48xlarge", "env_vars": {"K": "secret"}, "unknown": "secret"}
    with pytest.raises(InvalidInput) as caught:
        decoder.decode_bytes(json.dumps(body).encode())
    [missing] = [problem for problem in caught.value.problems if problem.type == "missing"]
    assert missing == Problem("missing", ("body", "image"), "Field required", {"instance_type": "p5.48xlarge"})


def test_a_value_that_is_long_is_not_repeated() -> None:
    assert refusal(image="x" * 5000)[0].input is msgspec.UNSET
    assert refusal(command=["x" * 5000])[0].input is msgspec.UNSET

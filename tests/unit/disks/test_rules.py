"""The rules of disks: names, sizes, what AWS's refusals mean. No socket."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET

from services.disks.adapters.ec2 import AwsRefused, AwsUnavailable, Ec2
from services.disks.domain.aws_objects import VolumeOrder
from services.disks.domain.claim import NewClaim, check_claim, check_size
from services.disks.domain.content import human_size
from services.disks.domain.disk import check_name, owner_label
from services.disks.domain.retries import refused_for_good, retry_after
from services.disks.schemas import CreateDiskRequest, DiskInfo, OperationRequested, OperationState
from shared.errors import InvalidInput
from shared.web.validation import decode_body

ALLOWED = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
BAD_NAMES = [
    "",
    "a" * 64,
    "a b",
    "a/b",
    "a.b",
    "data\n",
    "\ndata",
    "données",
    "\u0663",
    "\uff41",
    "a\u200b",
    "a\x00",
    "a%",
    "a'",
]


def accepted_by_body(name: str) -> bool:
    try:
        decode_body(json.dumps({"disk_name": name}).encode(), CreateDiskRequest)
    except InvalidInput:
        return False
    return True


def accepted_by_rule(name: str) -> bool:
    try:
        check_name(name, ("path", "disk_name"))
    except InvalidInput:
        return False
    return True


@given(st.one_of(st.text(max_size=70), st.text(alphabet=sorted(ALLOWED), max_size=70)))
@example("data\n")
@example("a" * 63)
@example("a" * 64)
def test_a_name_is_63_plain_characters_as_a_whole_wherever_it_is_given(name: str) -> None:
    allowed = 1 <= len(name) <= 63 and set(name) <= ALLOWED

    assert accepted_by_rule(name) == allowed
    assert accepted_by_body(name) == allowed


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_body(json.dumps({"disk_name": name}).encode(), CreateDiskRequest)

    assert refused.value.problems[0].loc == ("body", "disk_name")
    assert "63 letters" in refused.value.problems[0].msg


@pytest.mark.parametrize(
    "number",
    [
        "9",
        "16385",
        "0",
        "-1",
        "-10",
        "10.5",
        "1e400",
        "NaN",
        "Infinity",
        "-Infinity",
        "true",
        '"100"',
        "null",
        "9223372036854775808",
        "18446744073709551616",
        "1" + "0" * 400,
        "[100]",
        "{}",
    ],
)
def test_a_size_that_is_no_whole_number_of_gb_in_range_is_refused(number: str) -> None:
    with pytest.raises(InvalidInput):
        decode_body(f'{{"disk_name": "data", "size_gb": {number}}}'.encode(), CreateDiskRequest)


@pytest.mark.parametrize("size_gb", [10, 100, 16384])
def test_a_size_in_range_is_taken(size_gb: int) -> None:
    assert decode_body(f'{{"disk_name": "d", "size_gb": {size_gb}}}'.encode(), CreateDiskRequest).size_gb == size_gb


def test_a_disk_may_leave_its_size_open() -> None:
    assert decode_body(b'{"disk_name": "d"}', CreateDiskRequest).size_gb is UNSET


def test_all_problems_of_a_body_are_listed() -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_body(b'{"disk_name": "a b", "size_gb": 1, "zone": "x"}', CreateDiskRequest)

    assert {(p.type, p.loc[-1]) for p in refused.value.problems} == {
        ("string_pattern_mismatch", "disk_name"),
        ("greater_than_equal", "size_gb"),
        ("extra_forbidden", "zone"),
    }


def test_answers_have_the_contracts_keys_first_and_in_its_order() -> None:
    assert OperationRequested.__struct_fields__ == (
        "operation_id",
        "disk_name",
        "action",
        "message",
        "requested_at",
    )
    assert DiskInfo.__struct_fields__[:10] == (
        "disk_name",
        "user_id",
        "size_gb",
        "created_at",
        "last_used",
        "in_use",
        "reservation_id",
        "is_backing_up",
        "is_deleted",
        "snapshot_count",
    )
    assert OperationState.__struct_fields__[:9] == (
        "operation_id",
        "disk_name",
        "status",
        "error",
        "is_deleted",
        "delete_date",
        "created_at",
        "last_updated",
        "completed",
    )


def test_the_owner_is_shown_with_the_domain_when_there_is_one() -> None:
    assert owner_label("jschmidt", "meta.com") == "jschmidt@meta.com"
    assert owner_label("jschmidt", "") == "jschmidt"


def a_claim(**changes: Any) -> NewClaim:
    values = {
        "job_id": uuid4(),
        "user_id": 1,
        "username": "u",
        "disk_name": "data",
        "size_gb": None,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "provisional_for": timedelta(seconds=60),
        "availability_zone": "us-east-2a",
    }
    return NewClaim(**{**values, **changes})


@pytest.mark.parametrize("size_gb", [9, 10001, 0, -5, 2**70])
def test_a_job_cannot_ask_for_a_size_out_of_its_range(size_gb: int) -> None:
    with pytest.raises(InvalidInput):
        check_claim(a_claim(size_gb=size_gb))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_job_cannot_ask_for_a_bad_name(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_claim(a_claim(disk_name=name))


def test_a_job_may_leave_the_size_of_an_old_disk_open_but_not_name_another() -> None:
    check_size(a_claim(size_gb=None), 500)
    check_size(a_claim(size_gb=500), 500)
    with pytest.raises(InvalidInput, match="500 GB"):
        check_size(a_claim(size_gb=100), 500)


@pytest.mark.parametrize(
    "code",
    [
        "VolumeLimitExceeded",
        "MaxIOPSLimitExceeded",
        "InvalidParameterValue",
        "InvalidParameterCombination",
        "InvalidZone.NotFound",
        "UnsupportedOperation",
        "VolumeTypeNotAvailableInZone",
    ],
)
def test_a_refusal_of_the_volume_itself_is_for_good(code: str) -> None:
    assert refused_for_good(code)


@pytest.mark.parametrize(
    "code",
    [
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "InternalError",
        "ServiceUnavailable",
        "Unavailable",
        "InsufficientVolumeCapacity",
        "AuthFailure",
        "UnauthorizedOperation",
        "ExpiredToken",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "IdempotentParameterMismatch",
        "",
        "503",
        "RequestExpired",
        "OptInRequired",
        "MissingAuthenticationToken",
    ],
)
def test_an_outage_is_never_for_good(code: str) -> None:
    assert not refused_for_good(code)


@given(st.integers(min_value=0, max_value=10**9))
def test_the_rest_between_attempts_grows_but_work_goes_on_within_ten_seconds(failures: int) -> None:
    assert timedelta(0) < retry_after(failures) <= retry_after(failures + 1) <= timedelta(seconds=10)


ORDER = VolumeOrder(
    operation_id=uuid4(), disk_id=uuid4(), user_id=1, disk_name="d", size_gb=100, availability_zone="us-east-2a"
)


class FailingClient:
    """An EC2 client of which every call fails alike."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def create_volume(self, *_: Any, **__: Any) -> Any:
        raise self._error

    describe_volumes = delete_volume = create_volume


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "because"}}, "Call")


async def failing_ec2(error: Exception) -> Ec2:
    ec2 = Ec2(region="us-east-2")
    ec2._service._client = FailingClient(error)
    return ec2


@pytest.mark.parametrize(
    "error",
    [
        refusal("Throttling"),
        refusal("RequestLimitExceeded"),
        refusal("InternalError"),
        EndpointConnectionError(endpoint_url="http://x"),
        ReadTimeoutError(endpoint_url="http://x"),
        ConnectionResetError(),
    ],
)
async def test_throttling_and_silence_of_aws_say_nothing_about_the_volume(error: Exception) -> None:
    ec2 = await failing_ec2(error)

    with pytest.raises(AwsUnavailable):
        await ec2.create_volume(ORDER)
    with pytest.raises(AwsUnavailable):
        await ec2.find_volume(ORDER)
    await ec2.close()


async def test_a_refusal_for_good_is_told_in_awss_words() -> None:
    ec2 = await failing_ec2(refusal("VolumeLimitExceeded"))

    with pytest.raises(AwsRefused, match=r"AWS refused \(VolumeLimitExceeded\): because"):
        await ec2.create_volume(ORDER)
    await ec2.close()


async def test_a_look_that_is_refused_never_reads_as_not_there() -> None:
    ec2 = await failing_ec2(refusal("InvalidParameterValue"))

    with pytest.raises(AwsUnavailable):
        await ec2.find_volume(ORDER)
    await ec2.close()


class TwinsClient(FailingClient):
    """Has two volumes of one order, of the same second, and tells them in any order, as EC2 does."""

    def __init__(self, volume_ids: Iterable[str]) -> None:
        self._volume_ids = volume_ids

    def describe_volumes(self, **_: Any) -> Any:
        facts = {"State": "available", "AvailabilityZone": "us-east-2a", "CreateTime": datetime(2026, 1, 1, tzinfo=UTC)}
        return {"Volumes": [{"VolumeId": volume_id, **facts} for volume_id in self._volume_ids]}


@pytest.mark.parametrize("told", [("vol-1", "vol-2"), ("vol-2", "vol-1")])
async def test_of_two_volumes_of_an_order_each_look_finds_the_same(told: tuple[str, str]) -> None:
    ec2 = Ec2(region="us-east-2")
    ec2._service._client = TwinsClient(told)
    found = await ec2.find_volume(ORDER)
    assert found is not None
    assert found.volume_id == "vol-1"
    await ec2.close()


async def test_deleting_a_volume_that_is_gone_is_done() -> None:
    ec2 = await failing_ec2(refusal("InvalidVolume.NotFound"))

    await ec2.delete_volume("vol-1")
    await ec2.close()


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (1023, "1023 B"),
        (1024, "1.0 KB"),
        (1023 * 1024 + 972, "1023.9 KB"),
        (1024 * 1024 - 1, "1.0 MB"),
        (1024**3 - 1, "1.0 GB"),
        (1024**4 - 1, "1.0 TB"),
        (2000 * 1024**4, "2000.0 TB"),
    ],
)
def test_a_size_that_rounds_up_to_the_next_unit_is_told_in_it(size_bytes: int, shown: str) -> None:
    assert human_size(size_bytes) == shown

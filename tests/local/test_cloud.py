import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from deploy.local.aws import ACCOUNT, DEMO_ROLE, FOREIGN_ACCOUNT, InvalidNameError, Keys
from tests.local.conftest import eventually
from tests.support.servers import MotoServer


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_an_identity_is_a_session_of_the_companys_role(moto_server: MotoServer) -> None:
    who = moto_server.client("sts", moto_server.identity("jschmidt")).get_caller_identity()

    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{DEMO_ROLE}/jschmidt"
    assert who["Account"] == ACCOUNT


def test_a_role_of_the_same_name_in_another_account_shows_that_account(moto_server: MotoServer) -> None:
    who = moto_server.client("sts", moto_server.identity("jschmidt", account=FOREIGN_ACCOUNT)).get_caller_identity()

    assert who["Arn"] == f"arn:aws:sts::{FOREIGN_ACCOUNT}:assumed-role/{DEMO_ROLE}/jschmidt"


def test_another_role_is_made_when_asked_for(moto_server: MotoServer) -> None:
    for _ in range(2):
        who = moto_server.client("sts", moto_server.identity("jschmidt", role="SomeOtherRole")).get_caller_identity()

    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/SomeOtherRole/jschmidt"


@pytest.mark.parametrize("name", ["", "x", "a b", "a/b", "ä" * 4, "x" * 65, "$(id)"])
def test_a_name_that_aws_would_refuse_is_refused(moto_server: MotoServer, name: str) -> None:
    with pytest.raises(InvalidNameError):
        moto_server.identity(name)


def test_wrong_credentials_are_refused(moto_server: MotoServer) -> None:
    keys = moto_server.identity("jschmidt")
    wrong = {
        "secret": msgspec.structs.replace(keys, secret_access_key="x" * 40),
        "token": msgspec.structs.replace(keys, session_token="x" * 40),
        "no token": msgspec.structs.replace(keys, session_token=None),
        "unknown": Keys(access_key_id="AKIA" + "X" * 16, secret_access_key="x" * 40),
    }

    codes = {name: code_of(moto_server.client("sts", keys).get_caller_identity) for name, keys in wrong.items()}

    assert codes == {
        "secret": "SignatureDoesNotMatch",
        "token": "InvalidClientTokenId",
        "no token": "InvalidClientTokenId",
        "unknown": "InvalidClientTokenId",
    }


def test_an_expired_session_is_refused(moto_server: MotoServer) -> None:
    keys = moto_server.identity("jschmidt", duration_seconds=1)

    def refusal() -> str | None:
        try:
            moto_server.client("sts", keys).get_caller_identity()
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return None

    assert eventually(refusal) == "ExpiredToken"


def test_people_may_not_touch_disks(moto_server: MotoServer) -> None:
    person = moto_server.client("ec2", moto_server.identity("jschmidt"))

    assert code_of(person.describe_volumes) in {"UnauthorizedOperation", "AccessDenied"}


@pytest.mark.parametrize(
    "path", ["/moto-api/reset", "/moto-api/reset-auth", "/moto-api/data.json", "/latest/meta-data/"]
)
def test_the_control_pages_are_shut(moto_server: MotoServer, path: str) -> None:
    request = urllib.request.Request(f"{moto_server.endpoint_url}{path}", data=b"inf", method="POST")

    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=5)

    assert refusal.value.code == 403
    refusal.value.close()


def test_a_client_token_makes_one_volume(moto_server: MotoServer) -> None:
    ec2 = moto_server.client("ec2")
    wanted = {"AvailabilityZone": "us-east-2a", "Size": 10, "ClientToken": "operation-1"}

    first, second = ec2.create_volume(**wanted), ec2.create_volume(**wanted)
    moto_server.process.restart()
    third = ec2.create_volume(**wanted)

    assert first["VolumeId"] == second["VolumeId"] == third["VolumeId"]
    assert code_of(lambda: ec2.create_volume(**{**wanted, "Size": 11})) == "IdempotentParameterMismatch"


def test_everything_answered_survives_a_kill(moto_server: MotoServer) -> None:
    ec2, person = moto_server.client("ec2"), moto_server.identity("jschmidt")
    volume = ec2.create_volume(AvailabilityZone="us-east-2a", Size=10)["VolumeId"]
    tags = [{"Key": "name", "Value": "kept"}]
    snapshot = ec2.create_snapshot(VolumeId=volume, TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}])[
        "SnapshotId"
    ]

    moto_server.process.restart()

    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"] == 10
    assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Tags"] == tags
    assert moto_server.client("sts", person).get_caller_identity()["Account"] == ACCOUNT


def test_keys_and_memory_are_for_their_owner_alone(moto_server: MotoServer) -> None:
    files = [path for path in Path(moto_server.cloud.directory).iterdir() if path.is_file()]

    assert {path.name for path in files} == {"credentials.json", "snapshot.pickle"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

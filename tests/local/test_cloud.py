import os
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from deploy.local.aws import ACCOUNT, DEMO_ROLE, FOREIGN_ACCOUNT, InvalidNameError, Keys
from deploy.local.region import REGION
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
        urllib.request.urlopen(request, timeout=30)

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


class Disks:
    """Volumes and snapshots, and what is on them."""

    def __init__(self, server: MotoServer) -> None:
        self.ec2, self.folder = server.client("ec2"), server.cloud.disks

    def volume(self, snapshot: str | None = None) -> str:
        begun = {"SnapshotId": snapshot} if snapshot else {}
        return str(self.ec2.create_volume(AvailabilityZone="us-east-2a", Size=10, **begun)["VolumeId"])

    def snapshot(self, volume: str) -> str:
        return str(self.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])

    def write(self, volume: str, name: str, text: str) -> None:
        """As a pod does whose volume it is; into the file that is there."""
        file = self.folder / volume / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def files(self, volume: str) -> dict[str, str]:
        folder = self.folder / volume
        return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_volume_made_from_a_snapshot_holds_what_the_other_had_then(moto_server: MotoServer) -> None:
    disks = Disks(moto_server)
    volume = disks.volume()
    disks.write(volume, "model/weights", "one")
    disks.write(volume, "same", "same")
    first = disks.snapshot(volume)
    disks.write(volume, "model/weights", "two")
    disks.write(volume, "new", "new")
    second = disks.snapshot(volume)
    disks.write(volume, "model/weights", "six")
    (disks.folder / volume / "same").unlink()

    moto_server.process.restart()
    old, new = disks.volume(first), disks.volume(second)

    assert disks.files(old) == {"model/weights": "one", "same": "same"}
    assert disks.files(new) == {"model/weights": "two", "same": "same", "new": "new"}
    disks.write(old, "same", "other")
    again = disks.volume(disks.snapshot(old))
    assert disks.files(again) == {"model/weights": "one", "same": "other"}
    assert disks.files(disks.volume(first)) == {"model/weights": "one", "same": "same"}
    assert disks.files(volume) == {"model/weights": "six", "new": "new"}


def test_what_is_no_plain_file_comes_along(moto_server: MotoServer) -> None:
    disks = Disks(moto_server)
    volume = disks.volume()
    disks.write(volume, "program", "#!/bin/sh")
    where = disks.folder / volume
    (where / "program").chmod(0o750)
    (where / "link").symlink_to("/no/where")
    (where / "empty").mkdir(mode=0o711)
    os.mkfifo(where / "pipe")

    made = disks.folder / disks.volume(disks.snapshot(volume))

    assert {path.name for path in made.iterdir()} == {"program", "link", "empty", "pipe"}
    assert (made / "link").readlink() == Path("/no/where")
    for name in ("program", "empty", "pipe"):
        assert (made / name).stat().st_mode == (where / name).stat().st_mode
    assert (made / "program").stat().st_mtime_ns == (where / "program").stat().st_mtime_ns


def test_a_snapshot_of_what_no_job_has_had_is_empty(moto_server: MotoServer) -> None:
    disks = Disks(moto_server)
    assert disks.files(disks.volume(disks.snapshot(disks.volume()))) == {}


def test_a_snapshot_takes_room_for_what_has_changed(moto_server: MotoServer) -> None:
    disks = Disks(moto_server)
    volume = disks.volume()
    disks.write(volume, "large", "x" * 100_000)
    disks.write(volume, "small", "x")
    # the time of a change cannot be set back: the copy's has to be later than it by more than clocks differ
    changed = (disks.folder / volume / "small").stat().st_ctime
    eventually(lambda: time.time() > changed + 1.1)
    first = disks.snapshot(volume)
    disks.write(volume, "small", "y")
    second = disks.snapshot(volume)

    assert (disks.folder / first / "large").samefile(disks.folder / second / "large")
    assert not (disks.folder / volume / "large").samefile(disks.folder / second / "large")
    assert disks.files(second)["small"] == "y"
    assert disks.files(first)["small"] == "x"


def test_the_room_of_what_is_deleted_is_free_again(moto_server: MotoServer) -> None:
    disks = Disks(moto_server)
    volume = disks.volume()
    disks.write(volume, "file", "kept")
    snapshot = disks.snapshot(volume)
    copied = disks.ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion=REGION)["SnapshotId"]

    disks.ec2.delete_volume(VolumeId=volume)
    disks.ec2.delete_snapshot(SnapshotId=snapshot)

    assert not (disks.folder / volume).exists()
    assert not (disks.folder / snapshot).exists()
    assert disks.files(disks.volume(copied)) == {"file": "kept"}
    disks.ec2.delete_snapshot(SnapshotId=copied)
    assert not (disks.folder / copied).exists()


def test_keys_and_memory_are_for_their_owner_alone(moto_server: MotoServer) -> None:
    files = [path for path in Path(moto_server.cloud.directory).iterdir() if path.is_file()]

    assert {path.name for path in files} == {"credentials.json", "snapshot.pickle"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

"""Identities in the local AWS: who exists, and sessions of its roles for people and tests."""

import json
import re
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import ClientError

from deploy.local.part import Part, PartFailedError
from deploy.local.ports import HOST
from deploy.local.region import REGION

ACCOUNT = "308535385114"
"""The account whose people may log in."""
FOREIGN_ACCOUNT = "111122223333"
"""Another account that has a role of the same name: its people may not."""
DEMO_ROLE = "SSOCloudDevGpuReservation"
ADMIN = "admin"
"""The user in each account who may do everything and assume every role."""
# AWS's rule for RoleSessionName.
_SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")


class InvalidNameError(ValueError):
    """The name cannot be a role session's; the text says what may."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    """None for a user's long-lived key, set for a role session."""


class AccountKeys(msgspec.Struct, frozen=True, kw_only=True):
    admin: Keys
    """May do everything in the account."""
    disks: Keys
    """The disks service's user: may do everything in EC2."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The local AWS: one endpoint, its state folder with everyone's keys."""

    directory: Path
    port: int
    disks: Path
    """Folder of the volumes' files, where the simulator's pods find them, and of the snapshots'."""
    accounts: tuple[str, ...] = (ACCOUNT, FOREIGN_ACCOUNT)
    snapshot_seconds: float = 1.0
    """How long an EBS snapshot is pending."""

    @property
    def endpoint_url(self) -> str:
        """Where the AWS clients go."""
        return f"http://{HOST}:{self.port}"

    def part(self, log: Path) -> Part:
        """The server process."""
        accounts = [item for account in self.accounts for item in ("--account", account)]
        where = ["--port", str(self.port), "--state", str(self.directory), "--disks", str(self.disks)]
        where += ["--snapshot-seconds", str(self.snapshot_seconds)]
        return Part(
            name="moto",
            argv=(sys.executable, "-m", "deploy.local.moto_server", *where, *accounts),
            log=log,
            ready=self.is_ready,
            cwd=Path(__file__).parents[2],
            port=self.port,
        )

    def is_ready(self) -> bool:
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/ready", timeout=1):  # noqa: S310 - our own http URL
                return True
        except OSError:
            return False

    def keys(self, account: str = ACCOUNT) -> AccountKeys:
        """Keys of the account's users.

        Raises:
            PartFailedError: the server has not been up yet, or has no such account.
        """
        try:
            known = msgspec.json.decode((self.directory / "credentials.json").read_bytes(), type=dict[str, AccountKeys])
            return known[account]
        except (OSError, KeyError) as error:
            raise PartFailedError(f"The local AWS knows no account {account}.") from error

    def identity(
        self, name: str, *, role: str = DEMO_ROLE, account: str = ACCOUNT, duration_seconds: int = 43_200
    ) -> Keys:
        """A fresh role session of that name: what a person gets from the company's sign-on. Blocks.

        The role is made when there is none, trusting the account's administrator.

        Raises:
            InvalidNameError: AWS would refuse the name.
        """
        if not _SESSION_NAME.fullmatch(name):
            raise InvalidNameError(f"'{name}' is no session name: 2 to 64 letters, digits and any of _+=,.@- are.")
        admin = self.keys(account).admin
        if role != DEMO_ROLE:
            self._ensure_role(admin, account, role)
        answer = self.client("sts", admin).assume_role(
            RoleArn=role_arn(role, account), RoleSessionName=name, DurationSeconds=duration_seconds
        )
        given = answer["Credentials"]
        return Keys(
            access_key_id=given["AccessKeyId"],
            secret_access_key=given["SecretAccessKey"],
            session_token=given["SessionToken"],
        )

    def client(self, service: str, keys: Keys, region: str = REGION) -> Any:
        """A boto3 client of "sts", "ec2" or "iam" for these keys."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=region,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            aws_session_token=keys.session_token,
            # Unvalidated, so that tests may ask for sessions shorter than AWS's quarter of an hour.
            config=Config(parameter_validation=False, connect_timeout=2, read_timeout=60),
        )

    def _ensure_role(self, admin: Keys, account: str, role: str) -> None:
        try:
            self.client("iam", admin).create_role(RoleName=role, AssumeRolePolicyDocument=trust_policy(account))
        except ClientError as error:
            if error.response["Error"]["Code"] != "EntityAlreadyExists":
                raise


def role_arn(role: str = DEMO_ROLE, account: str = ACCOUNT) -> str:
    """The role's name in full."""
    return f"arn:aws:iam::{account}:role/{role}"


def trust_policy(account: str) -> str:
    """Lets the account's administrator assume the role."""
    principal = {"AWS": f"arn:aws:iam::{account}:user/{ADMIN}"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

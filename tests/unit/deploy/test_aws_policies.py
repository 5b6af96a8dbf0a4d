"""What deploy/aws allows the services is exactly what they ask AWS for."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from services.disks.domain.aws_objects import TAG_DISK, TAG_NAME, csi_tags

ROOT = Path(__file__).parents[3]
POLICIES = ROOT / "deploy" / "aws"


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((POLICIES / f"{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = policy["Statement"]
    return found


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def allowed(name: str) -> set[str]:
    return {action for statement in statements(name) for action in listed(statement["Action"])}


_BY_NAME = {"_list", "_look", "_call"}


def called(adapter: str, service: str) -> set[str]:
    """The calls of a module's clients: methods of what is named `client`, and names that one of `_BY_NAME` is given.

    `meta` is boto3's own, about the client.
    """
    tree = ast.parse((ROOT / adapter).read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "client":
            names |= {node.attr} - {"meta"}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _BY_NAME:
            names |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    # a client's `meta` is about itself and asks nobody
    return {f"{service}:{''.join(part.title() for part in name.split('_'))}" for name in names - {"meta"}}


@pytest.mark.parametrize(
    ("policy", "adapter", "service"),
    [
        ("disks-policy", "services/disks/adapters/ec2.py", "ec2"),
        ("auth-policy", "services/auth/adapters/sts.py", "sts"),
    ],
)
def test_a_policy_allows_exactly_the_calls_that_are_made(policy: str, adapter: str, service: str) -> None:
    made = called(adapter, service)
    assert made
    assert allowed(policy) == made


def test_disks_may_change_nothing_but_what_carries_their_tag() -> None:
    for statement in statements("disks-policy"):
        reads = all(action.startswith("ec2:Describe") for action in listed(statement["Action"]))
        condition = statement.get("Condition", {})
        tagged = any(f"Tag/{TAG_DISK}" in key for key in condition.get("Null", {}))
        being_made = "ec2:CreateAction" in condition.get("StringEquals", {})
        assert statement["Effect"] == "Allow"
        assert reads or tagged or being_made, statement["Sid"]


def test_disks_may_write_every_tag_that_they_write_later() -> None:
    (rename,) = [one for one in statements("disks-policy") if one["Sid"] == "RenameWhatIsOwn"]
    keys = rename["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"]
    assert set(keys) == {TAG_NAME, *csi_tags("cluster")}


def test_a_key_of_ones_own_is_used_for_volumes_alone() -> None:
    found = statements("disks-kms-policy")
    assert all("kms:ViaService" in one["Condition"]["StringEquals"] for one in found)
    (grant,) = [one for one in found if "kms:CreateGrant" in listed(one["Action"])]
    assert grant["Condition"]["Bool"] == {"kms:GrantIsForAWSResource": "true"}


def test_nobody_chooses_the_name_of_a_login_session() -> None:
    for statement in statements("login-role-trust-policy"):
        assert statement["Condition"] == {"StringEquals": {"sts:RoleSessionName": "${aws:username}"}}

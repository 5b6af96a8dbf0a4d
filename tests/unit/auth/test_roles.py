import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.auth.domain.roles import (
    CallerIdentity,
    NotAnAllowedRole,
    UnusableSessionName,
    admit,
    is_operator,
    parse_allowed_roles,
    parse_operators,
)

ROLE = "SSOCloudDevGpuReservation"
OURS = "308535385114"
ALLOWED = parse_allowed_roles(f"arn:aws:iam::{OURS}:role/{ROLE}")

partitions = st.sampled_from(["aws", "aws-cn", "aws-us-gov"])
accounts = st.text("0123456789", min_size=12, max_size=12)
# a comma at the very end of the list is taken for a slip, not for a part of the last name
names = st.text(string.ascii_letters + string.digits + "_+=,.@-", min_size=1, max_size=64).filter(
    lambda name: not name.endswith(",")
)
sessions = st.text(string.ascii_letters + string.digits + "._@-", min_size=2, max_size=64)
paths = st.lists(st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=8), max_size=3).map(
    lambda parts: "".join(f"{part}/" for part in parts)
)


def caller(
    *, partition: str = "aws", account: str = OURS, role: str = ROLE, session: str = "jschmidt", said: str | None = None
) -> CallerIdentity:
    return CallerIdentity(
        account=said or account,
        arn=f"arn:{partition}:sts::{account}:assumed-role/{role}/{session}",
        user_id=f"AROAEXAMPLEEXAMPLE123:{session}",
    )


@given(partition=partitions, account=accounts, name=names, path=paths, session=sessions)
def test_a_session_of_an_allowed_role_is_admitted_whatever_its_path(
    partition: str, account: str, name: str, path: str, session: str
) -> None:
    allowed = parse_allowed_roles(f"arn:{partition}:iam::{account}:role/{path}{name}")
    person = admit(caller(partition=partition, account=account, role=name, session=session), allowed)
    assert (person.account, person.role_id, person.session_name) == (account, "AROAEXAMPLEEXAMPLE123", session)


@given(
    allowed=st.lists(st.tuples(partitions, accounts, names), min_size=1, max_size=4),
    partition=partitions,
    account=accounts,
    name=names,
    mixed=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
)
def test_all_three_parts_must_be_of_one_role(
    allowed: list[tuple[str, str, str]], partition: str, account: str, name: str, mixed: tuple[int, int, int]
) -> None:
    """Each part is one that is allowed somewhere, or a stranger's; the whole must be one of the list."""
    pool = [*allowed, (partition, account, name)]
    candidate = tuple(pool[index % len(pool)][part] for part, index in enumerate(mixed))
    roles = parse_allowed_roles(",".join(f"arn:{p}:iam::{a}:role/{n}" for p, a, n in allowed))
    who = caller(partition=candidate[0], account=candidate[1], role=candidate[2])
    if candidate in allowed:
        assert admit(who, roles).account == candidate[1]
    else:
        with pytest.raises(NotAnAllowedRole):
            admit(who, roles)


@given(account=accounts)
def test_the_same_role_and_session_name_from_another_account_is_refused(account: str) -> None:
    """Incident 13."""
    assume(account != OURS)
    with pytest.raises(NotAnAllowedRole, match=f"arn:aws:iam::{OURS}:role/{ROLE}"):
        admit(caller(account=account), ALLOWED)


@pytest.mark.parametrize(
    ("arn", "user_id"),
    [
        (f"arn:aws:iam::{OURS}:user/jschmidt", "AIDAEXAMPLEEXAMPLE123"),
        (f"arn:aws:iam::{OURS}:user/{ROLE}/jschmidt", "AIDAEXAMPLEEXAMPLE123"),
        (f"arn:aws:iam::{OURS}:root", OURS),
        (f"arn:aws:sts::{OURS}:federated-user/jschmidt", f"{OURS}:jschmidt"),
        (f"arn:aws:iam::{OURS}:role/{ROLE}", "AROAEXAMPLEEXAMPLE123"),
        (f"arn:aws:iam::{OURS}:assumed-role/{ROLE}/jschmidt", "AROAEXAMPLEEXAMPLE123:jschmidt"),
        (f"arn:aws:sts::{OURS}:assumed-role/path/{ROLE}/jschmidt", "AROAEXAMPLEEXAMPLE123:jschmidt"),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}/jschmidt\n", "AROAEXAMPLEEXAMPLE123:jschmidt\n"),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}/jschmidt", "AROAEXAMPLEEXAMPLE123:somebodyelse"),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}/jschmidt", "AIDAEXAMPLEEXAMPLE123:jschmidt"),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE.lower()}/jschmidt", "AROAEXAMPLEEXAMPLE123:jschmidt"),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}2/jschmidt", "AROAEXAMPLEEXAMPLE123:jschmidt"),
        ("", ""),
    ],
)
def test_whoever_is_no_session_of_an_allowed_role_is_refused(arn: str, user_id: str) -> None:
    with pytest.raises((NotAnAllowedRole, UnusableSessionName)):
        admit(CallerIdentity(account=OURS, arn=arn, user_id=user_id), ALLOWED)


def test_an_account_that_contradicts_the_arn_is_refused() -> None:
    with pytest.raises(NotAnAllowedRole):
        admit(caller(said="111122223333"), ALLOWED)


@given(session=st.text(string.ascii_letters + "+=, :*ß１é\n\0", min_size=1, max_size=10))
def test_session_names_with_other_characters_are_refused_not_changed(session: str) -> None:
    assume(not session.isascii() or not session.isalnum())
    assume("/" not in session)
    with pytest.raises((UnusableSessionName, NotAnAllowedRole)):
        admit(caller(session=session), ALLOWED)


@pytest.mark.parametrize("session", ["a.b_c-d@e.f", "J", "0"])
def test_names_as_people_have_them_are_admitted(session: str) -> None:
    assert admit(caller(session=session), ALLOWED).session_name == session


def test_role_names_with_commas_stay_whole() -> None:
    text = f"arn:aws:iam::{OURS}:role/a,b, arn:aws-cn:iam::{OURS}:role/p/c,"
    assert [(role.partition, role.name) for role in parse_allowed_roles(text)] == [("aws", "a,b"), ("aws-cn", "c")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        ROLE,
        "*",
        f"arn:aws:iam::{OURS}:role/*",
        "arn:aws:iam::*:role/x",
        f"arn:aws:iam::{OURS}:user/x",
        f"arn:aws:sts::{OURS}:assumed-role/x/y",
        f"arn:aws:iam::{OURS}:role/ok,nonsense:x",
        "arn:aws:iam::12345678901:role/x",
    ],
)
def test_what_is_no_role_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValueError, match="ARN"):
        parse_allowed_roles(text)


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ("", False),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}/ann", True),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}/bob, arn:aws:sts::{OURS}:assumed-role/{ROLE}/*", True),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}/an", False),
        (f"arn:aws:sts::{OURS}:assumed-role/Other/ann", False),
        (f"arn:aws:sts::111122223333:assumed-role/{ROLE}/ann", False),
        (f"arn:aws:sts::{OURS}:assumed-role/{ROLE}x/*", False),
    ],
)
def test_an_operator_is_known_by_account_role_and_session(operators: str, *, expected: bool) -> None:
    person = admit(caller(session="ann"), ALLOWED)
    assert is_operator(person, parse_operators(operators)) is expected


@pytest.mark.parametrize("text", ["ann", f"arn:aws:iam::{OURS}:role/{ROLE}", "*"])
def test_an_operator_that_is_no_session_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValueError, match="ARN of a role session"):
        parse_operators(text)

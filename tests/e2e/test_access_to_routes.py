"""The walk over every route: no key, keys that are good no longer, a stranger, the owner, an operator."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.api_key import new_api_key
from tests.support.promises import promised
from tests.support.route_table import BODIES, DOCUMENTED, ENDLESS, ROUTES, TELL_OPERATORS, Serves
from tests.support.stack import ApiUser, LocalStack, answered, until, users

pytestmark = pytest.mark.timeout(180)

REFUSED = (401, {"detail": "Invalid API key"}, "Bearer")
DISABLED = (403, {"detail": "This user is disabled"}, None)
NOT_AN_OPERATOR = "Only operators may "
SERVED = {200, 409, 410, 426}
"""Done, or refused for what the object is like or for want of a WebSocket, which nobody hears but who may."""
MISSING = {
    "job_id": "00000000-0000-4000-8000-000000000000",
    "disk_name": "no-such-disk",
    "operation_id": "00000000-0000-4000-8000-000000000001",
    "key_prefix": "gpudev_0000000000",
    "webhook_id": "00000000-0000-4000-8000-000000000002",
    "user_id": "999999999999999999",
}
EVERY_SERVICE = ("/v1/jobs", "/v1/disks", "/v1/gpu/availability", "/v1/keys")


@pytest.fixture
async def door(stack: LocalStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=30) as client:
        yield client


async def everywhere(user: ApiUser, status: int) -> bool:
    return {(await user.client.get(path)).status_code for path in EVERY_SERVICE} == {status}


def told(answer: httpx.Response) -> tuple[int, Any, str | None]:
    return answer.status_code, answer.json(), answer.headers.get("www-authenticate")


async def ask(user: ApiUser, method: str, path: str, values: dict[str, str]) -> httpx.Response:
    """The answer; of one that has no end its beginning."""
    asked = user.client.stream(method, path.format(**values), json=BODIES.get(path))
    async with asked as answer:
        if path not in ENDLESS or answer.status_code != httpx.codes.OK:
            await answer.aread()
            return answer
        begun = await anext(answer.aiter_bytes())
        return httpx.Response(answer.status_code, headers={"content-type": "text/plain"}, content=begun)


async def refused_everywhere(
    door: httpx.AsyncClient, header: dict[str, str], wanted: tuple[int, Any, str | None]
) -> None:
    """Who has no good key is told so by every route that asks for one, whatever else is wrong, and by no other."""
    for (method, path), serves in ROUTES.items():
        place = re.sub(r"\{\w+\}", "x", path)
        content = None if method == "get" else b"{"
        answer = await answered(door, method, place, headers=header, content=content)
        if serves is Serves.NOBODY:
            assert answer.status_code == 404, (method, path)
        elif serves is Serves.ANYBODY:
            assert answer.status_code == (415 if method == "post" else 200), (method, path, answer.text)
        else:
            assert told(answer) == wanted, (method, path)
        is_file = path.startswith(("/docs/assets/", "/console"))
        assert "no-store" in answer.headers["cache-control"] or is_file, (method, path)
        if method == "get":
            head = await answered(door, "head", place, headers=header)
            assert (head.status_code, head.content) == (answer.status_code, b""), path


async def test_no_route_answers_without_a_key(door: httpx.AsyncClient) -> None:
    unknown = new_api_key().text
    for header in ({}, {"Authorization": f"Bearer {unknown}"}, {"Authorization": f"Bearer {unknown[:-1]}_"}):
        await refused_everywhere(door, header, REFUSED)


async def test_no_route_answers_to_a_good_key_in_another_scheme(stack: LocalStack, door: httpx.AsyncClient) -> None:
    async with users(stack, "stranger") as (stranger,):
        await refused_everywhere(door, {"Authorization": f"Basic {stranger.key}"}, REFUSED)


async def test_no_route_answers_to_an_expired_key(stack: LocalStack, door: httpx.AsyncClient) -> None:
    async with users(stack, "expires") as (leaver,):
        # no service has seen it before, and so none remembers when it was to end
        await stack.execute(
            "auth",
            "UPDATE api_keys SET expires_at = now() - interval '1 second' "
            "WHERE user_id = (SELECT id FROM users WHERE username = 'expires')",
        )
        await refused_everywhere(door, {"Authorization": f"Bearer {leaver.key}"}, REFUSED)


async def test_no_route_answers_to_a_revoked_key(stack: LocalStack, door: httpx.AsyncClient) -> None:
    async with users(stack, "revokes") as (leaver,):
        assert await everywhere(leaver, 200)
        keys = (await leaver.client.get("/v1/keys")).json()["keys"]
        assert (await leaver.client.delete(f"/v1/keys/{keys[0]['key_prefix']}")).status_code == 200
        with promised(2):
            await until(lambda: everywhere(leaver, 401), "revocation in every service")
        await refused_everywhere(door, {"Authorization": f"Bearer {leaver.key}"}, REFUSED)


async def test_no_route_answers_to_a_disabled_user(stack: LocalStack, door: httpx.AsyncClient) -> None:
    async with users(stack, "leaver") as (leaver,):
        assert await everywhere(leaver, 200)
        await stack.admin("auth", "disable-user", await stack.user_id("leaver"))
        with promised(5):
            await until(lambda: everywhere(leaver, 403), "the disabling in every service")
        await refused_everywhere(door, {"Authorization": f"Bearer {leaver.key}"}, DISABLED)


async def owned(stack: LocalStack, user: ApiUser) -> dict[str, str]:
    """One of everything that has an owner; and another user, whom operators may disable."""
    job_id = await user.submit(gpu_count=1, command="sleep 300")
    disk = await user.client.post("/v1/disks", json=BODIES["/v1/disks"])
    keys = (await user.client.get("/v1/keys")).json()["keys"]
    webhook = await user.client.post("/v1/webhooks", json=BODIES["/v1/webhooks"])
    await user.wait(job_id, "active")
    return {
        "job_id": job_id,
        "disk_name": "private",
        "operation_id": disk.json()["operation_id"],
        "key_prefix": keys[0]["key_prefix"],
        "webhook_id": webhook.json()["webhook_id"],
        "user_id": await stack.user_id("bystander"),
    }


async def walk(user: ApiUser, theirs: dict[str, str], *, served: set[Serves]) -> None:
    """Every route that asks for a key, about another's objects: those of `served` serve, for the rest they are not."""
    for (method, path), serves in DOCUMENTED.items():
        if serves is Serves.ANYBODY:
            continue
        answer = await ask(user, method, path, theirs)
        if serves in served:
            assert answer.status_code in SERVED, (method, path, answer.text)
        elif serves is Serves.OPERATORS:
            assert answer.status_code == 403, (method, path)
            assert answer.json()["detail"].startswith(NOT_AN_OPERATOR), (method, path)
        else:
            none = await ask(user, method, path, MISSING)
            assert told(answer) == told(none), (method, path)
            assert answer.status_code == 404, (method, path, answer.text)
            assert "not found" in answer.json()["detail"]
        if serves is Serves.USERS and not (Serves.OPERATORS in served and path in TELL_OPERATORS):
            said = [
                value for name, value in theirs.items() if name not in {"disk_name", "user_id"} and value in answer.text
            ]
            assert not said, (method, path)


async def test_each_route_serves_whom_the_table_says(stack: LocalStack) -> None:
    async with users(stack, "owner", "stranger", "operator", "bystander") as (owner, stranger, operator, _):
        theirs = await owned(stack, owner)
        await walk(stranger, theirs, served={Serves.USERS})
        assert (await owner.job(theirs["job_id"]))["status"] == "active"
        await walk(operator, theirs, served={Serves.USERS, Serves.OPERATORS, Serves.OWNER_AND_OPERATORS})
        assert (await owner.wait(theirs["job_id"], "cancelled"))["status_reason"] == "Cancelled by an operator"

        mine = {**theirs, "job_id": await owner.submit(gpu_count=1, command="sleep 300")}
        await owner.wait(mine["job_id"], "active")
        for (method, path), serves in DOCUMENTED.items():
            if serves in {Serves.OWNER, Serves.OWNER_AND_OPERATORS} and "{key_prefix}" not in path:
                answer = await ask(owner, method, path, mine)
                assert answer.status_code in SERVED, (method, path, answer.text)
        await owner.wait(mine["job_id"], "cancelled")
        revoked = await owner.client.delete(f"/v1/keys/{theirs['key_prefix']}")
        assert revoked.status_code == 200, revoked.text

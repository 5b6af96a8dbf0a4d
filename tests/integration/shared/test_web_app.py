import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import pytest
from litestar import Controller, Litestar, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.testing import AsyncTestClient
from prometheus_client import generate_latest

from shared.api_key import new_api_key
from shared.background import Loop
from shared.contracts.asyncapi import asyncapi_document
from shared.contracts.audit import AuditObject
from shared.contracts.auth import Identity
from shared.database import Database, Transaction
from shared.encryption import Cipher
from shared.errors import Conflict, DatabaseUnavailable, NotFound, Unauthenticated
from shared.idempotency import IdempotencyKey, idempotent, once
from shared.settings import CommonSettings
from shared.web.app import Foundation, ServiceParts, create_service_app
from shared.web.errors import error_responses
from shared.web.idempotency import idempotency_key, replayable
from shared.web.validation import PLAIN_TEXT, Body
from tests.support.hanging import hung_with_children
from tests.support.harness import eventually, new_secret_keys
from tests.support.promises import promised
from tests.support.servers import NatsServer

KEY = new_api_key()
OTHER = new_api_key()
FAILED_KEYS = 20
END = datetime(2100, 1, 1, tzinfo=UTC)


class Thing(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(max_length=8, pattern=PLAIN_TEXT)]
    size: Annotated[int, msgspec.Meta(ge=1, le=10)]
    hours: Annotated[float, msgspec.Meta(gt=0, le=72)] = 1.0
    flag: bool = False
    env: Annotated[dict[str, str], msgspec.Meta(max_length=2)] | None = None


class Made(msgspec.Struct):
    name: str
    number: int

    def audited(self) -> list[AuditObject]:
        return [AuditObject("thing", str(self.number), self.name)]


class Counter:
    def __init__(self) -> None:
        self.effects = 0


class ThingController(Controller):
    path = "/v1/disks"

    @post("/things", status_code=200, dto=Body[Thing], return_dto=None, responses=error_responses(400, 409, body=True))
    async def make(
        self,
        request: Request[Identity, Any, Any],
        data: JSONBody[Thing],
        foundation: NamedDependency[Foundation],
        counter: NamedDependency[Counter],
    ) -> Response[Made]:
        async def effect(_: Transaction) -> Made:
            counter.effects += 1
            if data.name == "clash":
                raise Conflict("It is taken")
            return Made(data.name, counter.effects)

        key = await idempotency_key(request)
        return replayable(
            await idempotent(foundation, effect, key=key, answer_type=Made, now=datetime.now(UTC), audit=Made.audited),
        )

    @get("/things/{name:str}", responses=error_responses(404))
    async def find(self, name: FromPath[str], limit: FromQuery[int] = 5) -> Made:
        if name == "missing":
            raise NotFound("Thing")
        if name == "broken":
            raise RuntimeError("secret detail")
        if name == "down":
            raise DatabaseUnavailable
        return Made(name, limit)


@pytest.fixture
def asked() -> list[str]:
    """Hashes of keys that auth was asked about."""
    return []


async def verify(asked: list[str], key_hash: str) -> Identity:
    asked.append(key_hash)
    if key_hash not in {KEY.hash, OTHER.hash}:
        raise Unauthenticated
    number = 1 if key_hash == KEY.hash else 2
    return Identity(user_id=number, username=f"u{number}", key_id="x", expires_at=END)


@pytest.fixture
def hanging() -> Loop:
    return Loop("hanging", asyncio.Event().wait, turn_seconds=600, stale_seconds=600)


@pytest.fixture
def app(harness_dsn: str, nats_server: NatsServer, hanging: Loop, asked: list[str]) -> Litestar:
    settings = CommonSettings(
        database_url=harness_dsn,
        nats_url=nats_server.service_url("disks"),
        secret_keys=new_secret_keys(),
        failed_keys_per_minute=FAILED_KEYS,
    )
    base = Foundation.open("disks", settings)
    return create_service_app(
        base,
        ServiceParts(
            controllers=[ThingController],
            verify=partial(verify, asked),
            resources={"foundation": base, "counter": Counter()},
            loops=[hanging],
        ),
    )


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[AsyncTestClient[Litestar]]:
    async with AsyncTestClient(app, raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {KEY.text}"
        yield client


async def test_every_problem_of_a_body_is_listed_with_what_was_given(client: AsyncTestClient[Litestar]) -> None:
    answer = await client.post(
        "/v1/disks/things",
        json={"name": "much-too-long-name", "size": True, "hours": -1, "flag": "yes", "extra": 1, "env": {"A": 5}},
    )
    assert answer.status_code == 400
    problems = {tuple(problem["loc"]): (problem["type"], problem["input"]) for problem in answer.json()["detail"]}
    assert problems == {
        ("body", "extra"): ("extra_forbidden", 1),
        ("body", "name"): ("too_long", "much-too-long-name"),
        ("body", "size"): ("int_type", True),
        ("body", "hours"): ("greater_than", -1),
        ("body", "flag"): ("bool_type", "yes"),
        ("body", "env", "A"): ("string_type", 5),
    }
    of_query = await client.get("/v1/disks/things/a?limit=many")
    assert [(problem["loc"], problem["input"]) for problem in of_query.json()["detail"]] == [
        (["query", "limit"], "many")
    ]


@pytest.mark.parametrize("size", ["5", 5.5, 1e300, -1, 0, 11, True, None, [], {}, 10**40])
async def test_a_number_that_is_none_or_out_of_bounds_is_refused(client: AsyncTestClient[Litestar], size: Any) -> None:
    answer = await client.post("/v1/disks/things", json={"name": "a", "size": size})
    assert answer.status_code == 400
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", "size"]]


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"NaN", b'{"size": NaN}', b'"\xff"', b"nul", b'{"name": "\\ud800", "size": 1}']
)
async def test_a_body_that_is_no_object_is_refused(client: AsyncTestClient[Litestar], body: bytes) -> None:
    answer = await client.post("/v1/disks/things", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("name", ["a\x00", "a\x1b", "a\x7f", "a\x85", "a\n"])
async def test_a_control_character_in_a_body_is_refused(client: AsyncTestClient[Litestar], name: str) -> None:
    answer = await client.post("/v1/disks/things", json={"name": name, "size": 1})
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"] == ["body", "name"]


@pytest.mark.parametrize("path", ["/v1/disks/things/a", "/v1/disks/things/missing", "/nowhere", "/", "/docs"])
async def test_head_is_get_without_its_body(client: AsyncTestClient[Litestar], path: str) -> None:
    get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


async def test_head_is_refused_where_get_is(client: AsyncTestClient[Litestar]) -> None:
    client.headers.pop("Authorization")
    answer = await client.head("/v1/disks/things/a")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (await client.head("/v1/disks/things")).status_code == 405


async def test_no_answer_is_kept_by_a_cache(client: AsyncTestClient[Litestar]) -> None:
    for path in ("/v1/disks/things/a", "/v1/disks/things/missing", "/v1/disks/things/broken", "/nowhere"):
        assert (await client.get(path)).headers["cache-control"] == "no-store"
    assert "max-age" in (await client.get("/docs/assets/swagger-ui.css")).headers["cache-control"]


async def test_a_query_of_any_length_is_refused_early(client: AsyncTestClient[Litestar]) -> None:
    answer = await client.get("/v1/disks/things/a?" + "limit=1&" * 2000)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["query"])


async def test_a_missing_body_is_refused(client: AsyncTestClient[Litestar]) -> None:
    answer = await client.post("/v1/disks/things")
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (400, "missing")


async def test_a_body_that_is_not_json_is_415_and_a_large_one_413(client: AsyncTestClient[Litestar]) -> None:
    plain = await client.post("/v1/disks/things", content=b"name=a", headers={"Content-Type": "text/plain"})
    large = await client.post("/v1/disks/things", json={"name": "a" * (1 << 20), "size": 1})
    assert (plain.status_code, large.status_code) == (415, 413)
    assert set(plain.json()) == set(large.json()) == {"detail"}


@pytest.mark.parametrize(
    "path", ["/v1/disks/things/a%00b", "/v1/disks/things/a?limit=%0a1", "/v1/disks/things/a?limit=x"]
)
async def test_control_characters_and_bad_parameters_are_refused(client: AsyncTestClient[Litestar], path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"][0] in {"path", "query"}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer",
        "Bearer x",
        f"Basic {KEY.text}",
        f"Bearer {KEY.text[:-1]}",
        f"Bearer {new_api_key().text}",
        "\x7f",
    ],
    ids=["none", "empty", "malformed", "other scheme", "wrong checksum", "unknown", "control character"],
)
async def test_a_request_without_a_good_key_gets_one_text(
    client: AsyncTestClient[Litestar], header: str | None
) -> None:
    client.headers.pop("Authorization")
    headers = {} if header is None else {"Authorization": header}
    answer = await client.post("/v1/disks/things", content=b"{", headers=headers)  # the key comes before the body
    assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid API key"})
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_keys_that_differ_each_time_are_asked_about_so_many_times_and_no_more(
    client: AsyncTestClient[Litestar], asked: list[str]
) -> None:
    good = {"X-Forwarded-For": "198.51.100.7"}
    assert (await client.get("/v1/disks/things/a", headers=good)).status_code == 200

    began = time.monotonic()
    answers = [
        await client.get("/v1/disks/things/a", headers={**good, "Authorization": f"Bearer {new_api_key().text}"})
        for _ in range(FAILED_KEYS + 10)
    ]
    given_back = (time.monotonic() - began) * FAILED_KEYS / 60

    statuses = [answer.status_code for answer in answers]
    assert statuses[:FAILED_KEYS] == [401] * FAILED_KEYS
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= FAILED_KEYS + 1 + given_back
    assert int(answers[statuses.index(429)].headers["retry-after"]) > 0
    assert len(set(asked)) <= FAILED_KEYS + 2 + given_back
    malformed = await client.get("/v1/disks/things/a", headers={**good, "Authorization": "Bearer x"})
    elsewhere = {"X-Forwarded-For": "198.51.100.8", "Authorization": f"Bearer {OTHER.text}"}
    assert malformed.status_code == 401
    assert (await client.get("/v1/disks/things/a", headers=good)).status_code == 200
    assert (await client.get("/v1/disks/things/a", headers=elsewhere)).status_code == 200


async def test_errors_have_one_shape_and_tell_nothing_internal(client: AsyncTestClient[Litestar]) -> None:
    missing = await client.get("/v1/disks/things/missing")
    broken = await client.get("/v1/disks/things/broken", headers={"X-Request-Id": "abc-1"})
    down = await client.get("/v1/disks/things/down")
    nowhere = await client.get("/nowhere")
    method = await client.put("/v1/disks/things")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Thing not found"})
    assert (broken.status_code, broken.json()) == (500, {"detail": "Internal Server Error", "request_id": "abc-1"})
    assert (down.status_code, int(down.headers["retry-after"]) > 0) == (503, True)
    assert (nowhere.status_code, method.status_code) == (404, 405)
    assert set(nowhere.json()) == set(method.json()) == {"detail"}
    assert broken.headers["x-request-id"] == "abc-1"
    assert nowhere.headers["x-request-id"]


async def test_a_repeated_request_gets_the_first_answer_and_no_second_effect(client: AsyncTestClient[Litestar]) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await client.post("/v1/disks/things", json={"name": "a", "size": 1}, headers=headers)
    again = await client.post("/v1/disks/things", json={"name": "a", "size": 1}, headers=headers)
    other = await client.post("/v1/disks/things", json={"name": "b", "size": 1}, headers=headers)
    elsewhere = await client.post(
        "/v1/disks/things", json={"name": "b", "size": 1}, headers={**headers, "Authorization": f"Bearer {OTHER.text}"}
    )
    assert first.json() == again.json() == {"name": "a", "number": 1}
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert other.status_code == 422
    assert elsewhere.json() == {"name": "b", "number": 2}


async def test_a_refused_request_may_be_tried_again_with_its_key(client: AsyncTestClient[Litestar]) -> None:
    headers = {"Idempotency-Key": "k1"}
    for _ in range(2):
        answer = await client.post("/v1/disks/things", json={"name": "clash", "size": 1}, headers=headers)
        assert answer.status_code == 409


async def test_a_key_in_flight_is_a_conflict(client: AsyncTestClient[Litestar], harness_dsn: str) -> None:
    database = Database(harness_dsn)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def effect() -> Made:
        entered.set()
        await leave.wait()
        return Made("a", 1)

    async def first() -> None:
        async with database.transaction() as transaction:
            await once(transaction, effect, key=IdempotencyKey(1, "k1", b""), answer_type=Made, cipher=cipher, now=END)

    cipher = Cipher(new_secret_keys())
    task = asyncio.create_task(first())
    await entered.wait()
    answer = await client.post("/v1/disks/things", json={"name": "a", "size": 1}, headers={"Idempotency-Key": "k1"})
    leave.set()
    await task
    await database.close()
    assert answer.status_code == 409
    assert "in flight" in answer.json()["detail"]


@pytest.mark.parametrize("key", ["", "a b", "a" * 256])
async def test_an_unusable_idempotency_key_is_refused(client: AsyncTestClient[Litestar], key: str) -> None:
    answer = await client.post("/v1/disks/things", json={"name": "a", "size": 1}, headers={"Idempotency-Key": key})
    assert answer.status_code == 400


async def test_health_names_the_services_that_do_not_answer(client: AsyncTestClient[Litestar]) -> None:
    own = await eventually(lambda: healthy(client), "own health")
    assert own["database"] == own["queue"] == "healthy"
    answer = await client.get("/health")
    body = answer.json()
    assert answer.status_code == 503
    assert list(body)[:4] == ["status", "database", "queue", "timestamp"]
    assert body["services"]["disks"]["status"] == "healthy"
    assert body["services"]["jobs"]["status"] == "unhealthy"


async def healthy(client: AsyncTestClient[Litestar]) -> Any:
    answer = await client.get("/health/disks")
    return answer.json() if answer.status_code == 200 else None


async def test_a_loop_that_hangs_makes_the_service_unhealthy(client: AsyncTestClient[Litestar], hanging: Loop) -> None:
    await eventually(lambda: healthy(client), "healthy at first")
    hanging._last_good -= 601
    answer = await client.get("/health/disks")
    assert answer.status_code == 503
    assert "hanging" in answer.json()["faults"][0]


async def test_a_broker_that_hangs_is_unhealthy_within_two_seconds(
    client: AsyncTestClient[Litestar], nats_server: NatsServer
) -> None:
    await eventually(lambda: healthy(client), "healthy at first")
    with hung_with_children(nats_server.process.pid), promised(2):
        answer = await client.get("/health/disks")
    assert (answer.status_code, answer.json()["queue"]) == (503, "unhealthy")


async def test_a_database_that_hangs_is_unhealthy_within_two_seconds(
    client: AsyncTestClient[Litestar], postgres_server: Any
) -> None:
    await eventually(lambda: healthy(client), "healthy at first")  # with connections that will hang
    with hung_with_children(postgres_server.process.pid), promised(2):
        answer = await client.get("/health/disks")
    assert (answer.status_code, answer.json()["database"]) == (503, "unhealthy")
    await eventually(lambda: healthy(client), "healthy again")


async def test_docs_come_from_this_machine_alone(client: AsyncTestClient[Litestar]) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "//" not in page.text.replace("<!DOCTYPE html>", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert (await client.get(f"/docs/assets/{asset}")).status_code == 200
    assert (await client.get("/docs/assets/..%2f..%2fLICENSE")).status_code == 404


async def test_the_page_of_events_comes_from_this_machine_and_has_every_event(
    client: AsyncTestClient[Litestar],
) -> None:
    document = (await client.get("/docs/events.json")).json()
    page = await client.get("/docs/events")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert document == asyncapi_document()
    assert not [name for name in document["channels"] if f'id="{name}"' not in page.text]
    assert "//" not in page.text.replace("<!DOCTYPE html>", "")
    assert "<script" not in page.text


async def test_metrics_name_no_methods_that_clients_make_up(client: AsyncTestClient[Litestar]) -> None:
    for number in range(3):
        await client.request(f"MADEUP{number}", "/things")
    text = generate_latest().decode()
    assert "MADEUP" not in text
    assert 'method="other"' in text


async def test_metrics_name_routes_and_not_ids(client: AsyncTestClient[Litestar]) -> None:
    await client.get("/v1/disks/things/some-id")
    metrics = generate_latest().decode()
    assert "/v1/disks/things/{name}" in metrics
    assert "some-id" not in metrics


async def test_it_answers_503_and_recovers_when_the_database_was_away(
    client: AsyncTestClient[Litestar], postgres_server: Any
) -> None:
    body = {"name": "a", "size": 1}
    assert (await client.post("/v1/disks/things", json=body)).status_code == 200
    postgres_server.process.kill()
    away = await client.post("/v1/disks/things", json=body)
    health = await client.get("/health/disks")
    postgres_server.process.start()
    assert (away.status_code, int(away.headers["retry-after"]) > 0) == (503, True)
    assert health.status_code == 503

    async def back() -> bool:
        return (await client.post("/v1/disks/things", json=body)).status_code == 200

    await eventually(back, "writes again")

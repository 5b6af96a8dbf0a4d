"""The jobs of others, as operators list them."""

from tests.support.jobs import Client, JobsWorld, until_status


async def test_operators_list_everybodys_jobs_and_those_of_a_user(world: JobsWorld, client: Client) -> None:
    async with world.service("bob") as bob, world.service("olga") as operator:
        first, second, third = await world.submit(client), await world.submit(bob), await world.submit(client)
        await world.grant(first)
        await until_status(client, first, "active")

        everybodys = (await operator.get("/v1/jobs?user=*")).json()
        assert [job["job_id"] for job in everybodys["jobs"]] == [str(third), str(second), str(first)]
        assert (everybodys["total"], everybodys["limit"], everybodys["offset"]) == (3, 50, 0)
        assert [job["user_id"] for job in everybodys["jobs"]] == ["alice", "bob", "alice"]
        waiting = (await operator.get("/v1/jobs?user=alice&status=queued")).json()
        assert ([job["job_id"] for job in waiting["jobs"]], waiting["total"]) == ([str(third)], 1)
        page = (await operator.get("/v1/jobs?user=*&limit=1&offset=1")).json()
        assert ([job["job_id"] for job in page["jobs"]], page["total"]) == ([str(second)], 3)
        own = (await operator.get("/v1/jobs")).json()
        assert own["total"] == 0

        same = await operator.get("/v1/jobs?user=bob")
        headers = {"If-None-Match": same.headers["etag"]}
        assert (await operator.get("/v1/jobs?user=bob", headers=headers)).status_code == 304


async def test_users_list_nobody_elses_jobs(world: JobsWorld, client: Client) -> None:
    async with world.service("olga") as operator:
        for whose in ("*", "bob", "alice"):
            refused = await client.get(f"/v1/jobs?user={whose}")
            assert (refused.status_code, refused.json()["detail"]) == (
                403,
                "Only operators may list the jobs of others",
            )
        nobody = await operator.get("/v1/jobs?user=nobody")
        assert (nobody.status_code, nobody.json()["detail"]) == (404, "User not found")

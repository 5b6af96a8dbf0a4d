"""The route of SSH through the API."""

from typing import Any

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from services.jobs.context import Context
from services.jobs.operations.read import get_own_or_any
from services.jobs.operations.tunnel import Tunnels
from shared.web.authentication import AUDITED, AuthenticatedRequest
from shared.web.errors import error_responses
from shared.web.key_holds import key_hold
from shared.web.upgrade import SWITCHING_PROTOCOLS, Socket, Upgraded, require_upgrade

_SWITCHING = ResponseSpec(data_container=None, description="Switching to WebSocket", generate_examples=False)


class SshController(Controller):
    path = "/v1/jobs"
    tags = ("Job Management",)

    @get(
        "/{job_id:str}/ssh",
        operation_id="open_ssh",
        opt={AUDITED: True},
        summary="Open a job's SSH port",
        responses={SWITCHING_PROTOCOLS: _SWITCHING} | error_responses(404, 409, 426),
    )
    async def ssh(
        self,
        request: AuthenticatedRequest,
        job_id: FromPath[str],
        context: NamedDependency[Context],
        tunnels: NamedDependency[Tunnels],
    ) -> Response[Any]:
        """A WebSocket (RFC 6455) whose binary messages are the bytes of the job's SSH port, in both directions.

        An empty binary message ends its direction. Text messages mean nothing: one is sent every 20 s while it is
        quiet. Who logs in is decided by the job's SSH server, as ever. The WebSocket is closed with code 1000 when both
        directions have ended, 1012 when the replica stops (connect again), 4001 when the job is over, 4003 when the API
        key is no longer good, and 4004 when the connection to the job broke. Operators may open any user's job, by its
        full id.
        """
        job = await get_own_or_any(identity=request.user, job_id=job_id, context=context)
        require_upgrade(request)
        tunnel = await tunnels.open(request.user.user_id, job)
        hold = key_hold(request)

        async def why_key_ended() -> str:
            return (await hold.ended()).why

        async def session(socket: Socket) -> None:
            await tunnel.run(socket, why_key_ended)

        return Upgraded(session)

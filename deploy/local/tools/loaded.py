"""`gpudev` with everything that any of its calls loads: for a process that loads it once and forks it for each call."""

import asyncio

import asyncssh

from deploy.local.tools import first_process, image, jupyter, listing, ready, sshd
from deploy.local.tools.__main__ import main

__all__ = ["first_process", "image", "jupyter", "listing", "main", "ready", "sshd"]


async def _rehearse() -> None:
    """Have an SSH server once: what its libraries make at their first use, every fork would make for itself."""
    key = asyncssh.import_private_key(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    server = await asyncssh.listen("127.0.0.1", 0, server_host_keys=[key])
    server.close()
    await server.wait_closed()


asyncio.run(_rehearse())

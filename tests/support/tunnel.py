"""A job's SSH port through the API, without OpenSSH."""

from gpudev.tunnel import SshEnded, SshTunnel


async def read_until_end(opened: SshTunnel) -> SshEnded:
    """Take what comes from a job, end the way there once the job has, and why it ended."""
    while True:
        try:
            if not await opened.read():
                await opened.write(b"")
        except SshEnded as ended:
            return ended

"""A listening socket that lets nobody in yet: for a server that would answer before it knows what.

Connections that come meanwhile are neither refused nor accepted: the client's kernel asks again, first after a second.
"""

import socket
import sys

from deploy.local.ports import HOST

_IP_MINTTL = 21
_HIGHEST_TTL = 255
"""What no other connection has: kernels begin with 64."""


class Gate:
    """The door of one part, which is shut anew at each start of the part and opened once.

    It rests on what Linux does with packets of a lower TTL than a socket asks for: it drops them. Elsewhere there is no
    gate, and the part listens for itself.

    Args:
        name: What the part calls the socket.
        port: Of the part.
    """

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self._port = port
        self._listener: socket.socket | None = None

    def shut(self) -> socket.socket | None:
        """A socket to give to the part's new process; None where there are no gates."""
        self.close()
        if sys.platform != "linux":
            return None
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, _HIGHEST_TTL)
        listener.bind((HOST, self._port))
        listener.listen(socket.SOMAXCONN)
        self._listener = listener
        return listener

    def pass_through(self) -> socket.socket:
        """A connection of our own, through the gate whether it is shut or not."""
        connection = socket.socket()
        connection.settimeout(2)
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _HIGHEST_TTL)
        try:
            connection.connect((HOST, self._port))
        except OSError:
            connection.close()
            raise
        return connection

    def open(self) -> None:
        """Let everybody in. The part's process alone keeps the socket, so that it ends with it."""
        if self._listener is not None:
            self._listener.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, 0)
        self.close()

    def close(self) -> None:
        """Forget the socket."""
        if self._listener is not None:
            self._listener.close()
        self._listener = None

"""Programs executed over SPDY, as older versions of kubectl do it."""

import base64
import json
import socket
import ssl
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import pytest
import yaml
from kubernetes.client import CoreV1Api

from deploy.local.cluster.apiserver.spdy import DICTIONARY
from tests.cluster.objects import shell
from tests.cluster.simulation import Simulation
from tests.cluster.waiting import pod_in_phase

SYN_STREAM, SYN_REPLY, PING = 1, 2, 6
FIN = 1


class Spdy:
    """A client that has asked for an exec and opens a stream for each channel."""

    def __init__(self, simulation: Simulation, pod: str, argv: list[str], *channels: str) -> None:
        document = yaml.safe_load(simulation.kubeconfig.read_text())
        authority = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        token = document["users"][0]["user"]["token"]
        plain = socket.create_connection(("127.0.0.1", simulation.port), 20)
        self.socket = ssl.create_default_context(cadata=authority).wrap_socket(plain, server_hostname="127.0.0.1")
        self._buffer = b""
        flags = {"tty" if name == "resize" else name: "true" for name in channels}
        query = urlencode([*flags.items(), *(("command", word) for word in argv)])
        self.socket.sendall(
            f"POST /api/v1/namespaces/default/pods/{pod}/exec?{query} HTTP/1.1\r\n"
            f"Host: x\r\nAuthorization: Bearer {token}\r\n"
            "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
            "X-Stream-Protocol-Version: v3.channel.k8s.io\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self.socket.recv(65536)
        self.head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self.streams = {name: 2 * number + 1 for number, name in enumerate(("error", *channels))}
        for name, stream in self.streams.items():
            pair = b"".join(struct.pack(">I", len(text)) + text for text in (b"streamtype", name.encode()))
            block = self._deflate.compress(struct.pack(">I", 1) + pair) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            self.control(SYN_STREAM, struct.pack(">IIBB", stream, 0, 0, 0) + block)

    def control(self, kind: int, body: bytes) -> None:
        self.socket.sendall(struct.pack(">HHI", 0x8003, kind, len(body)) + body)

    def data(self, channel: str, data: bytes, flags: int = 0) -> None:
        self.socket.sendall(struct.pack(">II", self.streams[channel], flags << 24 | len(data)) + data)

    def frame(self) -> tuple[int, int, bytes]:
        """Its first word, flags and body."""
        first, second = struct.unpack(">II", self._take(8))
        return first, second >> 24, self._take(second & 0xFFFFFF)

    def results(self) -> dict[str, bytes]:
        """All that came on each channel when every stream has ended."""
        found: dict[int, bytes] = defaultdict(bytes)
        open_streams, replies = set(self.streams.values()), 0
        while open_streams:
            first, flags, body = self.frame()
            if first >> 31:
                assert first & 0xFFFF == SYN_REPLY
                replies += 1
                continue
            found[first] += body
            if flags & FIN:
                open_streams.discard(first)
        assert replies == len(self.streams)
        return {name: found[stream] for name, stream in self.streams.items()}

    def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            data = self.socket.recv(65536)
            assert data, "the connection has ended"
            self._buffer += data
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken


@pytest.fixture
def pod(simulation: Simulation, connect: Callable[[Simulation], CoreV1Api]) -> str:
    core = connect(simulation)
    made = core.create_namespaced_pod("default", shell("trap 'exit 0' TERM; while :; do sleep 0.1; done"))
    return str(pod_in_phase(core, made, "Running").metadata.name)


@pytest.fixture
def dial(simulation: Simulation, pod: str) -> Iterator[Callable[..., Spdy]]:
    made: list[Spdy] = []

    def dial(argv: list[str], *channels: str) -> Spdy:
        made.append(Spdy(simulation, pod, argv, *channels))
        return made[-1]

    yield dial
    for client in made:
        client.socket.close()


def exit_code(results: dict[str, bytes]) -> str:
    status = json.loads(results["error"])
    return "0" if status["status"] == "Success" else str(status["details"]["causes"][0]["message"])


def test_the_dictionary_is_the_one_of_the_specification() -> None:
    # zlib names a dictionary by its checksum; this one begins the first header block of every SPDY/3 connection
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_a_command_speaks_on_its_streams_and_tells_its_exit_code(dial: Callable[..., Spdy]) -> None:
    client = dial(["sh", "-c", "echo out; echo err >&2; exit 3"], "stdout", "stderr")
    assert client.head.startswith(b"HTTP/1.1 101 ")
    assert b"x-stream-protocol-version: v4.channel.k8s.io" in client.head.lower()
    results = client.results()
    assert (results["stdout"], results["stderr"], exit_code(results)) == (b"out\n", b"err\n", "3")


def test_input_ends_with_its_stream(dial: Callable[..., Spdy]) -> None:
    client = dial(["cat"], "stdin", "stdout")
    data = bytes(range(256)) * 4000
    for begin in range(0, len(data), 30_000):
        client.data("stdin", data[begin : begin + 30_000])
    client.data("stdin", b"", FIN)
    results = client.results()
    assert results["stdout"] == data
    assert exit_code(results) == "0"


def test_a_terminal_has_the_size_that_was_sent(dial: Callable[..., Spdy]) -> None:
    client = dial(["sh", "-c", "read line; stty size"], "stdin", "stdout", "resize")
    client.data("resize", b'{"Width": 77, "Height": 33}\n')
    client.data("stdin", b"go\n")
    assert client.results()["stdout"].endswith(b"33 77\r\n")


def test_a_ping_is_answered(dial: Callable[..., Spdy]) -> None:
    client = dial(["cat"], "stdin", "stdout")
    client.control(PING, struct.pack(">I", 41))
    while (frame := client.frame())[0] & 0xFFFF != PING:
        assert frame[0] >> 31
    assert frame[2] == struct.pack(">I", 41)

"""JupyterLab on images that have none."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.jupyter_settings import THEIRS, write_settings_of_a_user
from tests.tools.conftest import Make
from tests.tools.container import Container, eventually, frame

pytestmark = pytest.mark.timeout(300)
FIRST, SECOND = "first-token-0123456789", "second-token-0123456789"


def start(container: Container, token: str) -> None:
    done = container.call("jupyter", "start", stdin=frame(json.dumps({"token": token}).encode()))
    assert done.returncode == 0, done.stderr


def status(container: Container, token: str) -> str:
    """HTTP status of a call with a token; 000 when nobody answers."""
    url = f"http://127.0.0.1:8888/api/kernelspecs?token={token}"
    return container.within("curl", "--noproxy", "*", "-s", "-o", "/dev/null", "-w", "%{http_code}", url).stdout


@pytest.mark.parametrize("user_id", [0, 1000])
@pytest.mark.parametrize("kind", ["debian", "musl", "empty"])
def test_jupyter_is_brought_along_to_any_root(make: Make, key: Path, kind: str, user_id: int) -> None:
    container = make(kind, user_id=user_id)
    container.start()
    container.await_ready()
    start(container, FIRST)
    assert (status(container, FIRST), status(container, SECOND)) == ("200", "403")
    start(container, FIRST)

    start(container, SECOND)
    assert (status(container, SECOND), status(container, FIRST)) == ("200", "403")
    processes = container.ssh(key, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout
    assert SECOND not in processes, "the token is neither an argument nor in an environment"

    stopped = container.call("jupyter", "stop")
    assert (stopped.returncode, status(container, SECOND)) == (0, "000")
    assert container.call("jupyter", "stop").returncode == 0


def test_a_notebook_cell_runs(make: Make) -> None:
    container = make("empty", user_id=1000)
    container.start()
    container.await_ready()
    start(container, FIRST)
    url = f"http://127.0.0.1:8888/lab?token={FIRST}"
    call = f"asyncio.run(Notebook({url!r}).run_cell('print(6 * 7)'))"
    code = f"import asyncio; from tests.support.notebook import Notebook; print({call})"
    ran = container.within(sys.executable, "-c", code)
    assert ran.stdout.strip() == "42", ran.stderr


def test_jupyter_comes_back_with_its_token_after_a_restart_of_the_container(make: Make) -> None:
    container = make("musl", user_id=1000)
    container.start()
    container.await_ready()
    start(container, FIRST)
    container.stop()
    container.start()
    container.await_ready()
    start(container, FIRST)
    assert status(container, FIRST) == "200"


@pytest.mark.parametrize("given", ['{"token": "short"}', '{"token": "with \\" quotes 0123456789"}', "{}", "[]", ""])
def test_what_is_no_token_is_refused(make: Make, given: str) -> None:
    container = make("empty")
    container.start()
    container.await_ready()
    refused = container.call("jupyter", "start", stdin=frame(given.encode()))
    assert refused.returncode == 1
    assert "token" in refused.stderr


def test_the_images_own_jupyter_is_used_and_its_last_words_are_told(make: Make) -> None:
    container = make("musl")
    program = container.root / "bin/jupyter-lab"
    program.write_text("#!/bin/sh\necho broken: no module named x >&2\nexit 1\n")
    program.chmod(0o755)
    container.start()
    container.await_ready()
    refused = container.call("jupyter", "start", stdin=frame(b'{"token": "%s"}' % FIRST.encode()))
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1] == "JupyterLab did not start: broken: no module named x"


def test_jupyter_that_is_starting_makes_way_for_a_later_wish_and_an_earlier_one_that_comes_late_is_void(
    make: Make,
) -> None:
    container = make("musl")
    program = container.root / "bin/jupyter-lab"
    program.write_text("#!/bin/sh\necho begun > /gpudev/run/begun\nexec sleep 600\n")
    program.chmod(0o755)
    container.start()
    container.await_ready()
    first, off = frame(b'{"token": "%s", "wish": 1}' % FIRST.encode()), frame(b'{"wish": 2}')
    with ThreadPoolExecutor() as beside:
        starting = beside.submit(container.call, "jupyter", "start", stdin=first)
        eventually(Path(f"/proc/{container.pid}/root/gpudev/run/begun").exists, container.errors)
        stopped = container.call("jupyter", "stop", stdin=off)
        assert stopped.returncode == 0, stopped.stderr
        assert starting.result(60).returncode == 1
    late = container.call("jupyter", "start", stdin=first)
    assert (late.returncode, late.stderr) == (1, "Another request came while JupyterLab started\n")
    assert container.call("jupyter", "stop", stdin=frame(b'{"wish": 1}')).returncode == 1


def test_the_users_own_settings_do_not_move_or_open_it(make: Make) -> None:
    container = make("empty", user_id=0)
    write_settings_of_a_user(container.root / "home/dev")
    (container.root / "home/dev/marker").touch()
    container.start()
    container.await_ready()
    start(container, FIRST)
    assert (status(container, FIRST), status(container, THEIRS)) == ("200", "403")
    url = "http://127.0.0.1:8888/{}?token=" + FIRST
    quiet = ("curl", "--noproxy", "*", "-s")
    assert "marker" in container.within(*quiet, url.format("api/contents")).stdout
    code = ("-o", "/dev/null", "-w", "%{http_code}")
    assert container.within(*quiet, *code, url.format("lab")).stdout == "200"

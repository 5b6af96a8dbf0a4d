"""The tools image in roots that have nothing in common with it: they need a kernel and no more."""

import json
import subprocess
from pathlib import Path

import pytest

from deploy.local.github_keys import make_key_pair
from services.jobs.domain.log_lines import LineReader
from tests.support.promises import promised
from tests.tools.conftest import Make, public
from tests.tools.container import eventually, frame, ssh_options

pytestmark = pytest.mark.timeout(180)

KINDS = ("debian", "musl", "empty")
USERS = (0, 1000)


@pytest.mark.parametrize("user_id", USERS)
@pytest.mark.parametrize("kind", KINDS)
def test_sessions_are_at_home_in_any_root(make: Make, key: Path, tmp_path: Path, kind: str, user_id: int) -> None:
    container = make(kind, user_id=user_id)
    container.start(COLOUR="red")
    container.await_ready()
    there = container.ssh(key, "pwd; echo $COLOUR $USER $HOME; id -u; exit 7")
    assert there.returncode == 7, there.stderr
    assert there.stdout.split() == ["/home/dev", "red", "dev", "/home/dev", str(user_id)]

    make_key_pair(tmp_path, "mallory")
    assert container.ssh(tmp_path / "mallory", "true").returncode == 255
    root = container.within("ssh", *ssh_options(key, tmp_path), "-p", "2222", "root@127.0.0.1", "true")
    assert root.returncode == 255, "there is no user but dev"

    terminal = container.ssh(key, "tty", "-tt")
    assert terminal.stdout.strip().startswith("/dev/pts/"), terminal.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_replaced_at_once_and_sessions_stay(make: Make, key: Path, tmp_path: Path, kind: str) -> None:
    container = make(kind, user_id=1000)
    container.start()
    container.await_ready()
    make_key_pair(tmp_path, "bob")
    where = ["-p", "2222", "dev@127.0.0.1", "cat"]
    session = subprocess.Popen(
        ["nsenter", "-t", str(container.pid), "-n", "ssh", *ssh_options(key, tmp_path), *where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(b"one\n")
    session.stdin.flush()
    assert session.stdout.readline() == b"one\n"

    replaced = container.call("keys", stdin=frame(public(tmp_path / "bob").encode()))
    assert (replaced.returncode, replaced.stderr) == (0, "")
    assert container.ssh(tmp_path / "bob", "true").returncode == 0
    assert container.ssh(key, "true").returncode == 255
    out, _ = session.communicate(b"two\n", timeout=60)
    assert out == b"two\n"


@pytest.mark.parametrize("stdin", [b"", b"5", b"x\n", b"9\nshort", b"-1\n", b"99999999999999\n"])
def test_input_that_is_no_frame_changes_nothing(make: Make, key: Path, stdin: bytes) -> None:
    container = make("empty")
    container.start()
    container.await_ready()
    refused = container.call("keys", stdin=stdin)
    assert refused.returncode == 1
    assert "no frame" in refused.stderr
    assert container.ssh(key, "exit 0").returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_output_goes_to_the_log_and_to_sessions(make: Make, key: Path, kind: str) -> None:
    container = make(kind, user_id=1000)
    container.start("/bin/sh", "-c", "echo $COLOUR; echo err >&2; pwd; while :; do sleep 1; done", COLOUR="red")
    container.await_ready()
    eventually(lambda: container.output() == "red\nerr\n/home/dev\n", container.errors)
    assert container.ssh(key, "cat /gpudev/run/command.log").stdout == container.output()


def test_the_command_begins_when_sshd_answers(make: Make) -> None:
    container = make("debian")
    container.start("/bin/sh", "-c", "/gpudev/bin/gpudev ready && echo ready", options=["--await", "60"])
    assert container.wait() == 0
    assert container.output() == "ready\n"


@pytest.mark.parametrize("user_id", USERS)
@pytest.mark.parametrize(
    ("options", "image", "where"),
    [
        ([], "/", "/home/dev"),
        ([], "/tmp", "/tmp"),
        (["--in", "/home/dev"], "/tmp", "/home/dev"),
        (["--in", "/home/dev/a b/$c"], "/", "/home/dev/a b/$c"),
        (["--in", "/"], "/tmp", "/"),
    ],
)
def test_the_command_starts_where_it_is_asked_to(
    make: Make, options: list[str], image: str, where: str, user_id: int
) -> None:
    container = make("musl", user_id=user_id)
    container.start("/bin/sh", "-c", "pwd; id -u; : > made 2>&1", options=options, directory=image)
    container.wait()
    assert container.output().splitlines()[:2] == [where, str(user_id)]
    if where.startswith("/home/dev/"):
        assert (container.root / where[1:]).stat().st_uid == user_id


def test_a_directory_that_cannot_be_made_is_told(make: Make) -> None:
    container = make("musl", user_id=1000)
    container.start("/bin/sh", "-c", "pwd", options=["--in", "/proc/x/y"])
    assert container.wait() == 126
    assert container.output().startswith("The command cannot start in /proc/x/y: ")


def test_a_home_of_the_users_is_the_commands_alone(make: Make, key: Path) -> None:
    container = make("musl", user_id=1000)
    (container.root / "gpudev/access/home").write_text("/somewhere else")
    container.start("/bin/sh", "-c", "echo $HOME; exec sleep 600")
    container.await_ready()
    eventually(lambda: container.output() == "/somewhere else\n", container.errors)
    assert container.ssh(key, "echo $HOME").stdout == "/home/dev\n"


def test_a_shell_has_the_environment_of_the_container_whatever_the_images_profile_says(make: Make, key: Path) -> None:
    container = make("debian", user_id=1000)
    (container.root / "etc").mkdir()
    (container.root / "etc/profile").write_text("export PATH=/nowhere COLOUR=blue HOME=/; cd /\n")
    container.start(COLOUR="red", PATH="/opt/conda/bin:/usr/sbin:/usr/bin")
    container.await_ready()
    tell = 'echo "$PATH $COLOUR $HOME $PWD"'
    wanted = "/opt/conda/bin:/usr/sbin:/usr/bin red /home/dev /home/dev"
    assert container.ssh(key, tell).stdout.strip() == wanted
    assert wanted in container.shell(key, tell)


@pytest.mark.parametrize("arguments", [["--in"], ["--"], ["--in", "/", "--"], ["--out", "/"], ["sh"]])
def test_a_call_that_is_none_is_refused(make: Make, arguments: list[str]) -> None:
    container = make("empty")
    container.start()
    assert container.call("run", *arguments).returncode == 2


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("no-such-program", 127)],
)
def test_the_exit_code_is_the_commands(make: Make, script: str, code: int) -> None:
    container = make("musl")
    container.start("/bin/sh", "-c", script)
    assert container.wait() == code


def test_all_that_was_printed_is_in_the_log_when_it_ends(make: Make) -> None:
    container = make()
    container.start("/bin/sh", "-c", "seq 100000; sleep 600 &")
    assert container.wait() == 0
    assert container.output().splitlines() == [str(number) for number in range(1, 100_001)]


BAR = r"""
printf '\r10%%'; while [ ! -e /tmp/go ]; do sleep 0.01; done
printf '\r99%%\n'; printf 'a\037\n\036\nb\036\037\n\n'; printf '\037'; sleep 0.5; printf 'end\037'
""".strip()
PRINTED = b"\r10%\r99%\na\x1f\n\x1e\nb\x1e\x1f\n\n\x1fend\x1f"


def test_a_line_without_an_end_is_seen_while_it_is_printed_and_the_log_is_as_printed(make: Make) -> None:
    """A runtime hands on what has an end."""
    container = make(user_id=1000)
    container.start("/bin/sh", "-c", f"{BAR}; while [ ! -e /tmp/end ]; do sleep 0.01; done")
    eventually(lambda: container.raw_output() == b"\r10%\x1f\n", container.errors)
    container.as_user(1000, "touch /tmp/go")
    told = LineReader()
    eventually(lambda: container.raw_output().endswith(b"end\x1f\x1f\n"), container.errors)
    with_times = b"".join(b"2026-01-20T18:30:00Z " + line + b"\n" for line in container.raw_output().split(b"\n")[:-1])
    assert told.feed(with_times) == PRINTED
    kept = Path(f"/proc/{container.pid}/root/gpudev/run/command.log")
    assert kept.read_bytes() == PRINTED
    container.as_user(1000, "touch /tmp/end")
    assert container.wait() == 0


def test_an_ssh_server_that_dies_beside_a_busy_command_is_started_again(make: Make, key: Path) -> None:
    container = make()
    container.start("/bin/sh", "-c", "while :; do echo busy; sleep 0.1; done")
    container.await_ready()
    before = container.ssh(key, "cat /gpudev/run/sshd.pid").stdout
    container.as_user(0, f"kill -9 {before}")

    def again() -> bool:
        return container.ssh(key, "cat /gpudev/run/sshd.pid").stdout not in {"", before}

    eventually(again, container.errors)


def test_the_end_of_a_long_log_is_kept_for_sessions(make: Make, key: Path) -> None:
    container = make()
    container.start("/bin/sh", "-c", "head -c 60000000 /dev/zero | tr '\\0' x; echo last; exec sleep 600")
    container.await_ready()
    kept = "stat -c %s /gpudev/run/command.log; tail -n 1 /gpudev/run/command.log | tail -c 5"

    def told() -> bool:
        return container.ssh(key, kept).stdout.endswith("last\n")

    eventually(told, container.errors)
    assert 16 << 20 <= int(container.ssh(key, kept).stdout.split()[0]) <= (32 << 20) + (1 << 16)


def test_a_command_that_is_asked_to_end_may_clean_up(make: Make) -> None:
    container = make()
    program = "trap 'sleep 0.3; echo saved; exit' TERM; echo ready; while :; do sleep 0.05; done"
    # the shell between dies of the signal; what it had started has its time all the same
    container.start("/bin/sh", "-c", f'bash -c "{program}"; echo unreached')
    eventually(lambda: container.output() == "ready\n", container.errors)
    assert container.stop() == 143
    assert container.output().startswith("ready\n")
    assert container.output().endswith("saved\n")
    assert "unreached" not in container.output()


def test_a_job_without_a_command_idles_and_ends_when_asked(make: Make) -> None:
    container = make("empty", user_id=1000)
    container.start()
    container.await_ready()
    with promised(5):
        assert container.stop() == 0


def test_host_keys_and_new_keys_survive_a_restart_of_the_container(make: Make, tmp_path: Path, key: Path) -> None:
    container = make("musl", user_id=1000)
    container.start()
    container.await_ready()
    make_key_pair(tmp_path, "bob")
    assert container.ssh(key, "true").returncode == 0
    container.call("keys", stdin=frame((public(key) + public(tmp_path / "bob")).encode()))
    assert container.stop() == 0
    container.start()
    container.await_ready()
    # the client has remembered the host's key, and refuses another
    assert container.ssh(key, "true").returncode == 0
    assert container.ssh(tmp_path / "bob", "true").returncode == 0


def test_an_ssh_server_that_dies_is_started_again(make: Make, key: Path) -> None:
    container = make()
    container.start()
    container.await_ready()
    pid = container.ssh(key, "cat /gpudev/run/sshd.pid").stdout.strip()
    container.ssh(key, f"kill -9 {pid}")
    eventually(lambda: container.ssh(key, "cat /gpudev/run/sshd.pid").stdout.strip() not in {"", pid}, container.errors)


def test_orphans_are_reaped(make: Make, key: Path) -> None:
    container = make()
    container.start()
    container.await_ready()
    container.ssh(key, "for i in 1 2 3; do (sleep 0.1 &) ; done; sleep 0.5")

    def none_left() -> bool:
        return "Z" not in container.ssh(key, "cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | cut -c1").stdout

    eventually(none_left, container.errors)


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_copied_by_sftp(make: Make, key: Path, tmp_path: Path, kind: str) -> None:
    container = make(kind, user_id=1000)
    container.start()
    container.await_ready()
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(bytes(range(256)) * 4096)
    options = [*ssh_options(key, tmp_path), "-P", "2222"]
    assert container.within("scp", "-s", *options, str(sent), "dev@127.0.0.1:there").returncode == 0
    assert container.within("scp", "-s", *options, "dev@127.0.0.1:/home/dev/there", str(back)).returncode == 0
    assert back.read_bytes() == sent.read_bytes()


def test_the_disk_is_home_and_is_listed_at_the_end(make: Make, key: Path) -> None:
    container = make("debian", user_id=1000)
    made = "mkdir -p ~/a/b/c/d; echo 12345 > ~/a/b/c/d/deep; ln -s /etc ~/link; touch ~/'quote\"'"
    script = f"{made}; sleep 600"
    container.start("/bin/sh", "-c", script, options=["--list", "/home/dev"])
    container.await_ready()
    assert container.ssh(key, "echo $HOME; pwd").stdout.split() == ["/home/dev", "/home/dev"]

    def listed() -> bool:
        return len(json.loads(container.call("listing", "/home/dev").stdout)["entries"]) == 5

    eventually(listed, container.errors)
    listing = json.loads(container.call("listing", "/home/dev").stdout)
    assert listing == {
        "size_bytes": 6,
        "truncated": False,
        "entries": [
            {"path": "a", "type": "directory", "size_bytes": 6},
            {"path": "a/b", "type": "directory", "size_bytes": 6},
            {"path": "a/b/c", "type": "directory", "size_bytes": 6},
            {"path": "link", "type": "link", "size_bytes": 0},
            {"path": 'quote"', "type": "file", "size_bytes": 0},
        ],
    }
    with Path(f"/proc/{container.pid}/root/dev/termination-log").open() as message:
        container.stop()
        assert json.loads(message.read()) == listing


def test_a_tree_that_is_very_deep_is_listed(make: Make) -> None:
    container = make("debian")
    deep = "cd /home/dev; i=0; while [ $i -lt 2040 ]; do mkdir d; cd -P d; i=$((i+1)); done; exec sleep 600"
    container.start("/bin/sh", "-c", deep, options=["--list", "/home/dev"])
    eventually(lambda: json.loads(container.call("listing", "/home/dev").stdout)["truncated"], container.errors)
    assert len(json.loads(container.call("listing", "/home/dev").stdout)["entries"]) == 3


def test_a_listing_is_bounded_and_is_json_whatever_names_are(make: Make) -> None:
    container = make("debian")
    container.start(
        "/bin/sh",
        "-c",
        "cd /home/dev; i=0; while [ $i -lt 2100 ]; do : > f$i; i=$((i+1)); done; "
        ": > \"$(printf 'a\\377\\nb')\"; exec sleep 600",
        options=["--list", "/home/dev"],
    )

    def listed() -> bool:
        return bool(json.loads(container.call("listing", "/home/dev").stdout)["truncated"])

    eventually(listed, container.errors)
    listing = json.loads(container.call("listing", "/home/dev").stdout)
    assert len(listing["entries"]) == 2000
    eventually(
        lambda: json.loads(container.call("listing", "/home/dev").stdout)["entries"][0]["path"] == "a\ufffd\nb",
        container.errors,
    )
    with Path(f"/proc/{container.pid}/root/dev/termination-log").open() as message:
        container.stop()
        text = message.read()
    assert len(text.encode()) <= 4096
    assert json.loads(text)["truncated"]


STEAL = """
cd /gpudev
mv etc stolen; mv bin stolen; mv run stolen; mv jupyter stolen; rm -rf etc bin run jupyter
for name in authorized_keys host_key jupyter.token jupyter_server_config.json; do
  mv etc/$name etc/away; rm -f etc/$name; cat > etc/$name
done
echo 1 1 > run/jupyter.pid; ln -s /etc/passwd run/sshd.log
mkdir -p jupyter/bin; cp /gpudev/bin/busybox jupyter/bin/python3
ln -s /etc/passwd etc/authorized_keys.1
"""


@pytest.mark.parametrize("kind", KINDS)
def test_another_user_of_a_roots_container_changes_nothing_of_the_tools(
    make: Make, key: Path, tmp_path: Path, kind: str
) -> None:
    container = make(kind, user_id=0)
    container.start()
    container.await_ready()
    make_key_pair(tmp_path, "mallory")
    busybox, keys = "/gpudev/bin/busybox", "/gpudev/etc/authorized_keys"
    look = f"{busybox} find /gpudev -exec {busybox} stat -c '%n %u %a' {{}} ';'; {busybox} cat {keys}"
    before = container.ssh(key, look).stdout

    stolen = container.as_user(1000, STEAL, stdin=public(tmp_path / "mallory").encode())
    assert stolen.stderr.count("ermission denied") + stolen.stderr.count("not permitted") > 10, stolen.stderr

    assert container.ssh(tmp_path / "mallory", "true").returncode == 255
    after = container.ssh(key, look).stdout
    assert after == before
    assert f"{keys} 0 600" in after


@pytest.mark.parametrize(
    "spoil",
    [
        "chown 1000 /gpudev/etc/authorized_keys",
        "chmod g+w /gpudev/etc/authorized_keys",
        "chmod o+w /gpudev/etc/authorized_keys",
        "chown 1000 /gpudev/etc",
        "chmod 777 /gpudev/etc",
    ],
)
def test_keys_that_others_could_have_written_open_nothing(make: Make, key: Path, spoil: str) -> None:
    container = make("musl", user_id=0)
    container.start()
    container.await_ready()
    assert container.ssh(key, "true").returncode == 0
    changed = container.as_user(0, f"/gpudev/bin/busybox {spoil}")
    assert changed.returncode == 0, changed.stderr
    assert container.ssh(key, "true").returncode == 255


def test_ports_and_the_agent_are_forwarded(make: Make, key: Path) -> None:
    container = make("empty", user_id=1000)
    container.start()
    container.await_ready()
    get = "/gpudev/bin/busybox nc 127.0.0.1 8123 < /dev/null | /gpudev/bin/busybox head -c 8"
    there = ("-o", "ExitOnForwardFailure=yes", "-R", "8123:127.0.0.1:2222")
    assert container.ssh(key, get, *there).stdout == "SSH-2.0-"
    where = ["-p", "2222", "dev@127.0.0.1", "test -S $SSH_AUTH_SOCK && echo here"]
    agent = container.within("ssh-agent", "ssh", "-A", *ssh_options(key, container.root.parent), *where)
    assert agent.stdout == "here\n", agent.stderr

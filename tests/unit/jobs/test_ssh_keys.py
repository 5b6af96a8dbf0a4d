"""Keys out of text that nobody vouches for (Incident 24)."""

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.ssh_keys import MAX_KEYS, authorized_keys, read_keys


def openssh(private: object) -> str:
    public = private.public_key()  # type: ignore[attr-defined]
    encoded: bytes = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return encoded.decode()


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


def made(kind: str, *fields: bytes) -> str:
    return f"{kind} {blob(kind.encode(), *fields)}"


ED25519 = openssh(ed25519.Ed25519PrivateKey.generate())
KEYS = [
    ED25519,
    openssh(rsa.generate_private_key(65537, 2048)),
    *(openssh(ec.generate_private_key(curve)) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())),
    made("sk-ssh-ed25519@openssh.com", b"k" * 32, b"ssh:"),
    made("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", b"k" * 65, b"ssh:"),
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.split()[0])
def test_every_kind_of_key_is_taken_without_its_comment(key: str) -> None:
    for line in (key, f"{key} alice@laptop", f"  {key}\tmy key\r"):
        assert read_keys(f"{line}\n".encode()) == [key]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# a comment",
        "ssh-ed25519",
        "ssh-dss " + blob(b"ssh-dss", b"1", b"2", b"3", b"4"),
        "ssh-ed25519 AAAA",
        "ssh-ed25519 " + blob(b"ssh-rsa", b"k" * 32),
        "ssh-ed25519 " + blob(b"ssh-ed25519", b"k" * 32, b"more"),
        "ssh-ed25519 " + blob(b"ssh-ed25519"),
        "ssh-ed25519 " + blob(b"ssh-ed25519", b"k" * 32)[:-4],
        'command="rm -rf /" ' + ED25519,
        "no-pty " + ED25519,
        ED25519.replace(" ", ";"),
        "$(reboot) " + ED25519,
        "ssh-ed25519 $(reboot)",
        "<html><script>alert(1)</script></html>",
        "ssh-rsa " + blob(b"ssh-rsa", b"\1\0\1", b"n" * 9000),
    ],
    # the keys are new in each process, and workers must agree on the tests' names
    ids=map(str, range(16)),
)
def test_what_is_no_whole_key_of_a_known_kind_is_no_key(line: str) -> None:
    assert read_keys(f"{line}\n{ED25519}\n".encode()) == [ED25519]


def test_keys_are_taken_once_and_only_so_many() -> None:
    many = [made("ssh-ed25519", bytes([n]) * 32) for n in range(MAX_KEYS + 5)]
    assert read_keys("\n".join([*many, *many]).encode()) == many[:MAX_KEYS]


HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([key.encode() for key in KEYS]),
    st.sampled_from(
        [b"\n", b"\r", b" ", b"\0", b"\xff", b"command=", b"\xe2\x80\xa8", b"\x0b", b"\x85", b"`id`", b"'"]
    ),
)


@given(st.lists(HOSTILE, max_size=12).map(b"".join))
def test_whatever_the_page_holds_the_file_holds_nothing_but_keys(page: bytes) -> None:
    keys = read_keys(page)
    assert set(keys) == {key for key in keys if read_keys(key.encode()) == [key]}
    assert set("".join(keys)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=-@. ")
    assert authorized_keys(keys).splitlines() == keys
    assert all(len(key.split(" ")) == 2 for key in keys)

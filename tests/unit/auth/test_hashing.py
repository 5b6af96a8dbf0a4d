import hashlib
import hmac

import pytest

from services.auth.domain.hashing import KeyHasher
from shared.api_key import new_api_key
from shared.web.address import counted_address


def test_what_is_stored_of_a_key_is_its_hmac_under_the_server_key() -> None:
    key = new_api_key()
    sha256 = hashlib.sha256(key.text.encode()).hexdigest()
    assert KeyHasher(b"k" * 32).digest(key.hash) == hmac.new(b"k" * 32, sha256.encode(), hashlib.sha256).digest()


def test_another_server_key_gives_another_hash() -> None:
    assert KeyHasher(b"k" * 32).digest("0" * 64) != KeyHasher(b"l" * 32).digest("0" * 64)


def test_buckets_of_different_kinds_differ() -> None:
    hasher = KeyHasher(b"k" * 32)
    assert hasher.bucket("address", "x") != hasher.bucket("access_key", "x")


@pytest.mark.parametrize(
    ("forwarded", "peer", "proxies", "counted"),
    [
        ("", "10.0.0.1", 1, "10.0.0.1"),
        ("198.51.100.7", "10.0.0.1", 1, "198.51.100.7"),
        ("198.51.100.7:4711", "10.0.0.1", 1, "198.51.100.7"),
        ("6.6.6.6, 198.51.100.7", "10.0.0.1", 1, "198.51.100.7"),
        ("198.51.100.7, nonsense", "10.0.0.1", 1, "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "10.0.0.1", 1, "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:4711", "10.0.0.1", 1, "2001:db8:1:2::/64"),
        ("", "unix", 1, "unix"),
        ("6.6.6.6, 198.51.100.7, 192.0.2.1", "10.0.0.1", 2, "198.51.100.7"),
        ("6.6.6.6, nonsense, 192.0.2.1", "10.0.0.1", 2, "192.0.2.1"),
        ("198.51.100.7", "10.0.0.1", 2, "198.51.100.7"),
        ("5.5.5.5,6.6.6.6,198.51.100.7,192.0.2.1,192.0.2.2", "10.0.0.1", 3, "198.51.100.7"),
        ("6.6.6.6", "198.51.100.7", 0, "198.51.100.7"),
    ],
)
def test_the_address_is_what_the_outermost_proxy_saw(forwarded: str, peer: str, proxies: int, counted: str) -> None:
    assert counted_address(forwarded, peer, proxies) == counted

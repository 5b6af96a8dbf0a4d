import pytest
from cryptography.fernet import Fernet

from shared.encryption import Cipher, UndecryptableError
from tests.support.harness import new_secret_keys


def test_a_secret_is_read_for_its_own_row_alone() -> None:
    cipher = Cipher(new_secret_keys())
    sealed = cipher.encrypt(b"secret", row="jobs.env_sealed:1")
    assert b"secret" not in sealed
    assert cipher.decrypt(sealed, row="jobs.env_sealed:1") == b"secret"
    for other in ("jobs.env_sealed:2", "jobs.jupyter_token_sealed:1", ""):
        with pytest.raises(UndecryptableError):
            cipher.decrypt(sealed, row=other)


def test_what_was_changed_or_cut_is_refused() -> None:
    cipher = Cipher(new_secret_keys())
    sealed = cipher.encrypt(b"secret", row="a")
    for changed in (b"", sealed[:1], sealed[:13], sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"no token"):
        with pytest.raises(UndecryptableError):
            cipher.decrypt(changed, row="a")


def test_what_an_older_version_stored_is_still_read() -> None:
    key = new_secret_keys()
    assert Cipher(key).decrypt(Fernet(key).encrypt(b"secret"), row="any") == b"secret"


def test_an_old_key_still_reads_and_a_foreign_one_does_not() -> None:
    old, new = new_secret_keys(), new_secret_keys()
    sealed = Cipher(old).encrypt(b"secret", row="a")
    assert Cipher(f"{new},{old}").decrypt(sealed, row="a") == b"secret"
    with pytest.raises(UndecryptableError):
        Cipher(new).decrypt(sealed, row="a")

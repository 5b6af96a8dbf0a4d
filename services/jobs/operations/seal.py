"""Secrets at rest: a job's environment, its Jupyter token and its log are encrypted, a submission is hashed."""

import hashlib
import hmac
import secrets
import zlib
from uuid import UUID

import msgspec

from services.jobs.context import Context
from services.jobs.domain.job import Job
from shared.encryption import Cipher


def request_mac(request: bytes, context: Context) -> bytes:
    """Keyed hash by which equal submissions are recognised; it says nothing about the secrets in them."""
    key = hashlib.sha256(b"gpudev request\0" + context.settings.secret_keys.rpartition(",")[2].encode()).digest()
    return hmac.digest(key, request, "sha256")


def seal_environment(job_id: UUID, environment: dict[str, str], context: Context) -> bytes | None:
    """The values as they may be stored; None when there are none."""
    if not environment:
        return None
    return context.cipher.encrypt(msgspec.json.encode(environment), row=f"jobs.env_sealed:{job_id}")


def unseal_environment(job_id: UUID, sealed: bytes, context: Context) -> dict[str, str]:
    """The values of the job's environment.

    Raises:
        UndecryptableError: They are not this job's, or no key fits.
    """
    clear = context.cipher.decrypt(sealed, row=f"jobs.env_sealed:{job_id}")
    return msgspec.json.decode(clear, type=dict[str, str])


def new_jupyter_token(job_id: UUID, context: Context) -> bytes:
    """A token of 192 random bits, as it may be stored."""
    return context.cipher.encrypt(secrets.token_urlsafe(24).encode(), row=f"jobs.jupyter_token_sealed:{job_id}")


def unseal_jupyter_token(job: Job, context: Context) -> str:
    """The job's token.

    Raises:
        UndecryptableError: There is none, it is not this job's, or no key fits.
    """
    sealed = job.jupyter_token_sealed or b""
    return context.cipher.decrypt(sealed, row=f"jobs.jupyter_token_sealed:{job.id}").decode()


def seal_log(cipher: Cipher, job_id: UUID, content: bytes) -> bytes:
    """A log's end as it may be stored."""
    return cipher.encrypt(zlib.compress(content, zlib.Z_BEST_COMPRESSION), row=_log_row(job_id))


def unseal_log(cipher: Cipher, job_id: UUID, sealed: bytes) -> bytes:
    """A log's end from what was stored of it.

    Raises:
        UndecryptableError: It is not this job's, or no key fits.
    """
    return zlib.decompress(cipher.decrypt(sealed, row=_log_row(job_id)))


def _log_row(job_id: UUID) -> str:
    return f"job_logs.sealed:{job_id}"

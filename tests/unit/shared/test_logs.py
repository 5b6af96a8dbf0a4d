import base64
import json
import re
import subprocess
import sys

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from shared.api_key import new_api_key
from shared.logs import mask_secrets, mask_text

KEY = new_api_key().text
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "text",
    [f"key {KEY} was used", "nats://services:hunter2hunter2@127.0.0.1", f"Authorization: Bearer {KEY}", AWS_SECRET],
    ids=["key", "url", "header", "aws"],
)
def test_what_looks_like_a_secret_is_masked_in_any_text(text: str) -> None:
    masked = mask_text(text)
    for secret in (KEY, "hunter2hunter2", AWS_SECRET):
        assert secret not in masked
    assert "***" in masked


@pytest.mark.parametrize("name", ["aws_secret_access_key", "aws_session_token", "api_key", "env_vars", "Authorization"])
def test_a_field_with_a_secret_name_is_masked_however_deep(name: str) -> None:
    event = mask_secrets(None, "info", {"event": "e", "body": {"list": [{name: "abc"}]}, name: {"A": "b"}})
    assert "abc" not in json.dumps(event)
    assert '"b"' not in json.dumps(event)


AWS_SECRETS = st.binary(min_size=30, max_size=30).map(lambda random: base64.b64encode(random).decode())


@given(AWS_SECRETS, st.sampled_from(("{}", "signed with {}", "key={};", '"{}"')))
def test_whatever_aws_may_give_as_a_secret_key_is_masked(secret: str, text: str) -> None:
    assume(re.search("[A-Z+]", secret))  # of random ones all but one in 10¹⁰
    assert mask_text(text.format(secret)) == text.format("***")


@given(st.lists(st.from_regex(r"[a-z][a-z0-9]*", fullmatch=True), min_size=2).map("/".join))
@example("site/package/services/disks/adapters/ec2")
def test_a_path_is_no_secret_however_long(path: str) -> None:
    line = f'File "{path}.py", line 40, in list_volumes'
    assert mask_text(line) == line


def test_ordinary_facts_stay_readable() -> None:
    event = {
        "event": "granted",
        "job": "3f2a8c1e-0000-4000-8000-000000000000",
        "gpus": 8,
        "none": None,
        "path": "/v1/jobs",
    }
    assert mask_secrets(None, "info", dict(event)) == event


def test_the_standard_librarys_logging_goes_through_the_same_mask() -> None:
    script = (
        "import logging; from shared.logs import configure_logs; configure_logs(service='s', replica='r');"
        f"logging.getLogger('botocore').error('signed with %s', '{AWS_SECRET}');"
        f"\ntry: raise ValueError('{KEY}')"
        "\nexcept ValueError: logging.getLogger('x').exception('failed')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["service"] for line in lines] == ["s", "s"]
    assert AWS_SECRET not in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize("gone", ["os.close(2)", "sys.stderr.close()", "os.close(reader); os.dup2(writer, 2)"])
def test_the_work_goes_on_when_nobody_takes_the_log_any_more(gone: str) -> None:
    script = (
        "import os, sys, structlog; from shared.logs import configure_logs; configure_logs(service='s', replica='r')"
        "\nlog = structlog.get_logger('x'); log.error('before'); reader, writer = os.pipe()"
        f"\n{gone}"
        "\nlog.error('after'); print('goes on', flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "goes on\n"
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["before"]

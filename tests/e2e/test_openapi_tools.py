"""The document as tools read it: linters with their recommended rules, and a client that is generated from it."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stack import LocalStack

TOOLS = Path(__file__).parents[1] / "openapi"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done


@pytest.fixture
async def document(stack: LocalStack, tmp_path: Path) -> Path:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as client:
        answer = await client.get("/openapi.json")
    file = tmp_path / "openapi.json"
    file.write_bytes(answer.content)
    return file


@pytest.fixture(scope="module")
def linters() -> Path:
    """The linters as the lock has them."""
    assert shutil.which("npm"), "install Node.js with npm: the linters need it"
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=TOOLS)
    return TOOLS / "node_modules" / ".bin"


def test_redocly_finds_nothing(linters: Path, document: Path) -> None:
    done = run(
        linters / "redocly",
        "lint",
        document,
        "--extends=recommended",
        "--format=json",
        folder=document.parent,
        REDOCLY_TELEMETRY="off",
    )
    found: Any = json.loads(done.stdout)
    assert (found["totals"], found["problems"]) == ({"errors": 0, "warnings": 0, "ignored": 0}, [])


def test_spectral_finds_nothing(linters: Path, document: Path) -> None:
    done = run(
        linters / "spectral",
        "lint",
        document,
        "--ruleset",
        TOOLS / "spectral.yaml",
        "--format=json",
        "--quiet",
        "--fail-severity=hint",
        folder=document.parent,
    )
    assert json.loads(done.stdout or "[]") == []


async def test_a_generated_client_logs_in_submits_lists_and_cancels(
    stack: LocalStack, document: Path, tmp_path: Path
) -> None:
    uv, venv = Path(sys.executable).with_name("uv"), tmp_path / "venv"
    python = venv / "bin" / "python"
    run(uv, "venv", "--quiet", "--python", sys.executable, venv, folder=tmp_path)
    run(
        uv,
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "--python",
        python,
        "-r",
        TOOLS / "client.txt",
        folder=tmp_path,
    )
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    run(
        venv / "bin" / "openapi-python-client",
        "generate",
        "--path",
        document,
        "--meta",
        "none",
        "--output-path",
        tmp_path / "gpudev_client",
        "--fail-on-warning",
        folder=tmp_path,
        PATH=path,
    )
    exported = await asyncio.to_thread(stack.identity, "generated")
    stack.secrets |= {exported["AWS_SECRET_ACCESS_KEY"], exported["AWS_SESSION_TOKEN"]}
    await asyncio.to_thread(
        run, python, TOOLS / "client_tour.py", folder=tmp_path, **{**exported, "PYTHONPATH": str(tmp_path)}
    )

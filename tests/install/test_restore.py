"""The database goes back to a minute ago, as docs/operate/backup.md says: nothing outside is deleted, work goes on."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.local.postgres import binaries
from tests.install.document import ROOT, Document
from tests.install.installation import JOBS, SYSTEM, Installation
from tests.install.surroundings import Surroundings, eventually, run
from tests.install.test_install import ready

pytestmark = pytest.mark.timeout(900)
PAGE = ROOT / "docs/operate/backup.md"


def test_a_restore_to_a_minute_ago_deletes_nothing(installation: Installation) -> None:
    stop, start, again = Document(PAGE).blocks("Restore")
    backup = base_backup(installation.surroundings)
    kept = begin(installation, "kept")
    moment = sql(installation.surroundings, "SELECT clock_timestamp()")
    begin(installation, "lost")
    pods, disks = job_pods(installation), volume_ids(installation)
    assert len(pods) == 2
    assert len(disks) == 2

    installation.shell.run(stop)
    eventually(lambda: not installation.objects("pods", SYSTEM, "-l", IS_SERVICE), "the end of the services", 120)
    restore(installation.surroundings, backup, moment)
    began = time.monotonic()
    installation.shell.run(start)
    eventually(lambda: installation.health()[0] == 200 and ready(installation), "healthy again", 300)
    # the services are ready before the ingress sends requests to them
    eventually(lambda: installation.asked(f"/v1/jobs/{kept}") != 503, "the ingress knows where jobs is", 60)
    assert time.monotonic() - began < 300

    # the key that was given before the moment is known, and the job of before is read with its encrypted values
    assert installation.status(kept) == "active"
    orphans = eventually(lambda: found if (found := reported(installation)).get("pods") else None, "a report", 120)
    assert orphans["pods"] == 1
    eventually(lambda: reported(installation).get("volume") == 1, "the lost disk's volume in the report", 120)
    assert job_pods(installation) == pods
    assert volume_ids(installation) == disks

    installation.shell.run(again)
    eventually(lambda: len(job_pods(installation)) == 1, "the orphan's end once the sweeper may", 180)
    installation.api(f"/v1/jobs/{kept}/cancel", {})
    eventually(lambda: not job_pods(installation), "the end of the other")


IS_SERVICE = "app.kubernetes.io/component in (auth,jobs,disks,capacity)"


def begin(installation: Installation, name: str) -> str:
    """A disk, and a job with a secret, which stays. (The cluster has no CSI driver: the disk is not the job's.)"""
    installation.api("/v1/disks", {"disk_name": name, "size_gb": 10})
    eventually(lambda: name in {tag(volume) for volume in volumes(installation)}, "a volume", 60)
    job = installation.submit("/gpudev/bin/busybox sleep 3600", env_vars={"TOKEN": name})
    installation.await_active(job)
    return job


def job_pods(installation: Installation) -> set[str]:
    return {pod["metadata"]["uid"] for pod in installation.objects("pods", JOBS)}


def volumes(installation: Installation) -> list[dict[str, Any]]:
    cloud = installation.surroundings.cloud
    return list(cloud.client("ec2", cloud.keys().admin).describe_volumes()["Volumes"])


def volume_ids(installation: Installation) -> set[str]:
    return {volume["VolumeId"] for volume in volumes(installation)}


def tag(volume: dict[str, Any]) -> str:
    """The disk's name, as the volume tells it."""
    return next((one["Value"] for one in volume.get("Tags", []) if one["Key"] == "Name"), "")


def reported(installation: Installation) -> dict[str, float]:
    """The gauge of orphans, of whichever replica sweeps."""
    found: dict[str, float] = {}
    for service in ("jobs", "disks"):
        for pod in installation.objects("pods", SYSTEM, "-l", f"app.kubernetes.io/component={service}"):
            path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:9000/proxy/metrics"
            text = installation.kubectl("get", "--raw", path, check=False)
            for kind, value in re.findall(r'^gpudev_orphans\{kind="(\w+)"\} (\S+)$', text, re.MULTILINE):
                found[kind] = max(found.get(kind, 0), float(value))
    return found


def base_backup(surroundings: Surroundings) -> Path:
    """What a nightly backup has."""
    folder = surroundings.folder / "backup"
    environment = {**os.environ, "PGPASSWORD": surroundings.postgres.password}
    server = ["-h", "127.0.0.1", "-p", str(surroundings.postgres.port), "-U", "postgres"]
    subprocess.run(
        [str(binaries() / "pg_basebackup"), *server, "-D", str(folder), "-X", "none", "-c", "fast"],
        env=environment,
        check=True,
    )
    return folder


def sql(surroundings: Surroundings, query: str) -> str:
    return run([str(binaries() / "psql"), "-X", "-A", "-t", "-c", query, surroundings.postgres.dsn()]).strip()


def restore(surroundings: Surroundings, backup: Path, moment: str) -> None:
    """Point-in-time recovery with PostgreSQL's own means."""
    sql(surroundings, "SELECT pg_switch_wal()")
    surroundings.database.stop()
    data = surroundings.postgres.directory
    owner = data.stat()
    data.rename(data.with_name("lost"))
    shutil.move(backup, data)
    (data / "recovery.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"restore_command = 'cp {surroundings.archive}/%f %p'\n")
        settings.write(f"recovery_target_time = '{moment}'\nrecovery_target_action = 'promote'\n")
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    data.chmod(0o700)
    surroundings.database.start()
    eventually(lambda: sql(surroundings, "SELECT pg_is_in_recovery()") == "f", "the end of the recovery", 60)

"""GPU Dev on a real cluster, installed by the commands of docs/operate/install.md."""

import json
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from deploy.chart import tools
from deploy.local.aws import role_arn
from deploy.local.postgres import DATABASE
from deploy.local.region import AVAILABILITY_ZONE, REGION
from shared.routes import SERVICES
from tests.install.document import INSTALL, ROOT, Document, Shell, variables
from tests.install.surroundings import INGRESS_CLASS, INGRESS_PORT, NODE, TRAEFIK, Surroundings, run

SYSTEM, JOBS = "gpudev-system", "gpudev"
REGISTRY = "registry.example"
TAG = "new"
JOB_IMAGE = f"{REGISTRY}/gpudev-tools:{TAG}"
"""Of the jobs: nothing else is on the node, and the tools need no other to run a command."""
JOB_DOMAIN = "jobs.test"
URL = f"http://{NODE}:{INGRESS_PORT}"


class Installation:
    """One release, and how a person at a shell looks at it."""

    def __init__(self, surroundings: Surroundings, kubeconfig: str) -> None:
        self.surroundings = surroundings
        self.folder = surroundings.folder
        self.kubeconfig = kubeconfig
        self.document = Document(INSTALL)
        self._put_programs(kubeconfig)
        self.shell = Shell(self._checkout(), self._operator(kubeconfig))
        self.url = URL

    @property
    def values(self) -> Path:
        """The file that the document makes."""
        return self.shell.directory / "values.yaml"

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """kubectl's output."""
        return run([str(self.folder / "bin/kubectl"), *arguments], stdin=stdin, check=check)

    def objects(self, kind: str, namespace: str, *arguments: str) -> list[dict[str, Any]]:
        """All of a kind in a namespace."""
        return list(json.loads(self.kubectl("-n", namespace, "get", kind, "-o", "json", *arguments))["items"])

    def cluster_ip(self, namespace: str, service: str) -> str:
        """Address of a Service."""
        return self.kubectl("-n", namespace, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Helm on the release's namespace."""
        done = subprocess.run(
            [str(self.folder / "bin/helm"), *arguments, "--namespace", SYSTEM],
            env=self.shell.environment,
            cwd=self.shell.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        if check:
            assert done.returncode == 0, f"helm {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def install(self) -> None:
        """What the document says, up to a release that waits for its users."""
        self.surroundings.start_dns(self.cluster_ip)
        self.start_ingress()
        self.shell.environment |= self._answers(self.document.blocks("Say what is yours"))
        for title in ("Make the secrets, once", "Prepare PostgreSQL and NATS"):
            for block in self.document.blocks(title):
                self.shell.run(block)
        self.surroundings.start_nats(self._nats_passwords())
        namespaces, values, install = self.document.blocks("Install")
        self.shell.run(namespaces)
        self.make_aws_keys()
        self.shell.run(values)
        self.add_to_values()
        self.give_jobs_hosts()
        self.shell.run(install)
        self.tell_names()

    def start_ingress(self) -> None:
        """Before the installation: it is the cluster's."""
        self.kubectl("apply", "-f", str(TRAEFIK))
        self.kubectl("-n", "traefik", "rollout", "status", "deployment/traefik", "--timeout=120s")

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and answer of /health, through the ingress."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, {}
        except (OSError, ValueError):
            return 0, {}

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the API answers to the user whose key the README's first job left in the shell."""
        headers = {"Authorization": f"Bearer {self.shell.environment['API_KEY']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=40) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read(1000)!r}") from error

    def asked(self, path: str) -> int:
        """Status of the answer to that user."""
        request = urllib.request.Request(self.url + path)
        request.add_header("Authorization", f"Bearer {self.shell.environment['API_KEY']}")
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def submit(self, command: str, **fields: Any) -> str:
        """A job of one GPU; its id."""
        job = {"image": JOB_IMAGE, "instance_type": "p5.48xlarge", "gpu_count": 1, "duration_hours": 1, **fields}
        return str(self.api("/v1/jobs/submit", {**job, "command": command})["job_id"])

    def status(self, job: str) -> str:
        """Of a job."""
        return str(self.api(f"/v1/jobs/{job}")["status"])

    def await_active(self, job: str, seconds: float = 180) -> None:
        """Until it runs."""
        deadline = time.monotonic() + seconds
        while (found := self.api(f"/v1/jobs/{job}"))["status"] != "active":
            assert found["status"] in {"pending", "queued", "preparing"}, found
            assert time.monotonic() < deadline, found
            time.sleep(0.5)

    def make_aws_keys(self) -> None:
        """Of the role of disks: here a user's keys, where there is no IRSA."""
        keys = self.surroundings.cloud.keys().disks
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "aws-disks", "namespace": SYSTEM},
            "stringData": {"AWS_ACCESS_KEY_ID": keys.access_key_id, "AWS_SECRET_ACCESS_KEY": keys.secret_access_key},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def add_to_values(self) -> None:
        """What is this environment's own: its AWS, its GitHub, a node that is small."""
        surroundings = self.surroundings
        aws = f"http://{surroundings.at(surroundings.cloud.port)}"
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        keys = [{"name": n, "valueFrom": {"secretKeyRef": {"name": "aws-disks", "key": n}}} for n in names]
        small = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
        per_gpu = {"memory_gib_per_gpu": 1, "grace_seconds": 5}
        jobs = {
            "github_url": f"http://{surroundings.at(surroundings.github.port)}",
            "shm_gib_per_gpu": 1,
            "scratch_gib": 1,
            "sweep_seconds": 5,
            **per_gpu,
        }
        own = {
            "image": {"pullPolicy": "Never"},
            "services": {
                "auth": {"settings": {"aws_endpoint_url": aws}, "resources": small},
                "disks": {"settings": {"aws_endpoint_url": aws, "sweep_seconds": 5}, "env": keys, "resources": small},
                "jobs": {"settings": jobs, "resources": small},
                "capacity": {"settings": per_gpu, "resources": small},
            },
            "migrations": {"resources": small},
            "ingress": {"host": ""},
        }
        values = yaml.safe_load(self.values.read_text())
        self.values.write_text(yaml.safe_dump(merged(values, own)))

    def give_jobs_hosts(self) -> None:
        """What the document says of JupyterLab with TLS, with a certificate that nobody else trusts."""
        certificate, key = self.certificate, self.folder / "jobs.key"
        name = ["-subj", f"/CN=*.{JOB_DOMAIN}", "-addext", f"subjectAltName=DNS:*.{JOB_DOMAIN}"]
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run([*new, "-days", "2", *name, "-out", str(certificate), "-keyout", str(key)])
        (told,) = re.findall(r"^```yaml\n(services:\n  jobs:\n.*?)^```", INSTALL.read_text(), re.DOTALL | re.MULTILINE)
        own = yaml.safe_load(told.replace("jobs.example.org", JOB_DOMAIN))
        secret = own["services"]["jobs"]["settings"]["job_tls_secret"]
        self.kubectl("-n", JOBS, "create", "secret", "tls", secret, f"--cert={certificate}", f"--key={key}")
        self.values.write_text(yaml.safe_dump(merged(yaml.safe_load(self.values.read_text()), own)))

    @property
    def certificate(self) -> Path:
        """Of the jobs' hosts."""
        return self.folder / "jobs.crt"

    def tell_names(self) -> None:
        """Let DNS know the services."""
        self.surroundings.tell_names(*(f"gpudev-{service}" for service in SERVICES))

    def _answers(self, blocks: list[str]) -> dict[str, str]:
        """This environment's, to each variable that the document asks for."""
        surroundings = self.surroundings
        admin = surroundings.postgres.dsn().replace(f":{surroundings.postgres.password}@", "@")
        found = {
            "REGISTRY": REGISTRY,
            "VERSION": TAG,
            "DATABASE": f"{surroundings.at(surroundings.postgres.port)}/{DATABASE}",
            "DATABASE_ADMIN": admin,
            "PGPASSWORD": surroundings.postgres.password,
            "NATS": surroundings.nats_url,
            "STREAM_REPLICAS": "3",
            "HOST": "",
            "API_URL": self.url,
            "INGRESS_CLASS": INGRESS_CLASS,
            "ALLOWED_ROLES": role_arn(),
            "AWS_REGION": REGION,
            "ZONE": AVAILABILITY_ZONE,
        }
        (block,) = blocks
        assert set(found) == set(variables(block)), "the document asks for other things"
        return found

    def operator_url(self) -> str:
        """NATS, from this machine, as the user who may do everything among the services."""
        (password,) = re.findall(r'^OPERATOR_PASSWORD: "(.+)"$', self._nats_passwords(), re.MULTILINE)
        return ",".join(
            server.replace("nats://", f"nats://operator:{password}@") for server in self.surroundings.nats_here
        )

    def _nats_passwords(self) -> str:
        text = (self.shell.directory / "secrets/nats.yaml").read_text().removeprefix("---\n")
        return str(json.loads(text)["stringData"]["passwords.conf"])

    def _checkout(self) -> Path:
        """A folder that looks like the root of the checkout, for what the commands leave there."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        for name in ("deploy", "docs", "README.md"):
            (folder / name).symlink_to(ROOT / name)
        return folder

    def _operator(self, kubeconfig: str) -> dict[str, str]:
        keys = self.surroundings.cloud.identity("operator")
        return {
            **self.surroundings.environment(),
            "KUBECONFIG": kubeconfig,
            "NO_PROXY": "*",
            "no_proxy": "*",
            "AWS_ACCESS_KEY_ID": keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
            "AWS_SESSION_TOKEN": str(keys.session_token),
        }

    def _put_programs(self, kubeconfig: str) -> None:
        folder = self.folder / "bin"
        folder.mkdir()
        programs = {"helm": tools.helm(3), "kubectl": tools.kubectl(3)}
        for name, program in programs.items():
            script = folder / name
            script.write_text(f'#!/bin/sh\nexport NO_PROXY="*" KUBECONFIG={kubeconfig}\nexec {program} "$@"\n')
            script.chmod(0o755)


def merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both, `more` first."""
    both = {**values, **more}
    for name in values.keys() & more.keys():
        if isinstance(values[name], dict) and isinstance(more[name], dict):
            both[name] = merged(values[name], more[name])
    return both

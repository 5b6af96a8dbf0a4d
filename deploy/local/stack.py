"""The whole of GPU Dev on one machine: which parts there are, in what order they come up, and what they leave."""

import asyncio
import dataclasses
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from deploy.local import leftovers
from deploy.local.applications import Applications
from deploy.local.aws import Cloud, Keys
from deploy.local.banner import banner
from deploy.local.broker import TOOLS_USER, Broker
from deploy.local.cluster_part import DEMO_FLEET, Cluster
from deploy.local.command_line import write_command
from deploy.local.error_pages import serve_error_pages
from deploy.local.github_keys import KeyPages, make_key_pair
from deploy.local.ingress import Ingress, is_healthy
from deploy.local.job_hosts import DOMAIN, serve_job_hosts
from deploy.local.part import Part, PartFailedError
from deploy.local.ports import free_ports, is_free
from deploy.local.postgres import DATABASE, Postgres, prepare_database
from deploy.local.region import REGION
from deploy.local.simulator_api import SimulatorApi
from deploy.local.ssh_config import ssh_command, write_ssh_config
from deploy.local.state import RunningStack, StateDirectory, write_private
from deploy.local.supervisor import RestartPolicy, Supervisor, run_once, together
from deploy.local.tools.image import IMAGE
from shared.routes import SERVICES

ROOT = Path(__file__).parents[2]
DEMO_USER = "demo"
_THREADS = 32
_HEALTH_SECONDS = 15.0
_RENEWAL_SECONDS = 6 * 3600.0
"""A session lasts 12 h: whoever reads the file has half of them left."""
_RENEWAL_RETRY_SECONDS = 10.0
_JOBS_PER_CORE = 2
"""That jobs brings forward at once: here pods start on the cores that it runs on too, and twenty that start together
are all as late as the last one."""
_SERVERS, _APPLICATIONS, _INGRESS = range(3)


class SettingError(Exception):
    """A variable that sets up the stack is wrong; the text names it and says what may be."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    state: Path = Path(".local")
    """GPUDEV_STATE: folder for everything that is kept."""
    port: int = 8000
    """GPUDEV_PORT: of the ingress; 1 to 65535."""
    replicas: int = 1
    """GPUDEV_REPLICAS: processes of each service; 1 to 9."""
    read_seconds: int = 20
    """GPUDEV_READ_SECONDS: how long a client may take to send a request, 1 to 60; GPUDEV_BODY_SECONDS is less, so that
    a body that is too slow is told so by its service."""
    trusted_proxies: int = 1
    """GPUDEV_TRUSTED_PROXIES: proxies that requests pass, the ingress among them, 1 to 10; for the services too."""
    nodes: str = DEMO_FLEET
    """GPUDEV_NODES: the simulator's nodes, instance types separated by commas."""
    kubeconfig: Path | None = None
    """GPUDEV_KUBECONFIG: a cluster to use in place of the simulator; None for the simulator."""
    namespace: str = "gpudev"
    """GPUDEV_NAMESPACE: where the jobs' objects live in the cluster; made unless it is there."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings out of environment variables.

    Raises:
        SettingError: one of them is wrong.
    """
    given = {name: environment.get(f"GPUDEV_{name.upper()}") or None for name in Settings.__struct_fields__}
    kubeconfig = Path(given["kubeconfig"]).absolute() if given["kubeconfig"] else None
    if kubeconfig is not None and not kubeconfig.is_file():
        raise SettingError(f"GPUDEV_KUBECONFIG names {kubeconfig}, which is no file.")
    return Settings(
        state=Path(given["state"] or ".local"),
        port=_number("GPUDEV_PORT", given["port"], default=8000, highest=65_535),
        replicas=_number("GPUDEV_REPLICAS", given["replicas"], default=1, highest=9),
        read_seconds=_number("GPUDEV_READ_SECONDS", given["read_seconds"], default=20, highest=60),
        trusted_proxies=_number("GPUDEV_TRUSTED_PROXIES", given["trusted_proxies"], default=1, highest=10),
        nodes=given["nodes"] or DEMO_FLEET,
        kubeconfig=kubeconfig,
        namespace=given["namespace"] or "gpudev",
    )


def tell(line: str) -> None:
    """To the person at the terminal, or whoever reads us through a pipe: the stack goes on without them."""
    try:
        print(line, flush=True)
    except OSError:
        # what is written from now on, and at the end of the program, goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Stack:
    """One running stack.

    Args:
        settings: what to run and where.
        services: folder that holds the package `services`.
        migrate: program that brings the databases up to date.
        policy: when to give up on a part; None: the usual one.
        renewal_seconds: between two AWS sessions of the demo user in the env file.
    """

    _demo: Keys
    """The demo user's, once the local AWS is up."""

    def __init__(
        self,
        settings: Settings,
        *,
        services: Path = ROOT,
        migrate: tuple[str, ...] = (sys.executable, "-m", "shared.database.migrate"),
        policy: RestartPolicy | None = None,
        renewal_seconds: float = _RENEWAL_SECONDS,
    ) -> None:
        self._settings = settings
        self._renewal_seconds = renewal_seconds
        self._migrate = migrate
        self._services = services
        self.state = StateDirectory(settings.state)
        self.url = f"http://localhost:{settings.port}"
        self._kubeconfig = settings.kubeconfig or self.state.kubeconfig
        self._pages: list[asyncio.Server] = []
        """For the ingress, by this process."""
        self._renewing: list[asyncio.Task[None]] = []
        """What writes the env file anew, once there is one."""
        self._supervisor = Supervisor(report=tell, changed=self._write_table, policy=policy)

    async def run(self) -> int:
        """Bring everything up, keep it up until SIGINT or SIGTERM, take it down; the exit code.

        Raises:
            StateInUseError: another stack uses the folder.
            SettingError: the port is taken.
        """
        self.state.create()
        with self.state.lock():
            leftovers.end(self.state)
            if not is_free(self._settings.port):
                raise SettingError(
                    f"Port {self._settings.port} is in use by another program. Set GPUDEV_PORT to a free one."
                )
            self.state.env.unlink(missing_ok=True)
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
            asked_to_stop = self._listen_for_signals()
            try:
                return await self._live(asked_to_stop)
            finally:
                # Before the parts go: who finds the file shall find them.
                self.state.env.unlink(missing_ok=True)
                await self._supervisor.stop()
                for page in self._pages:
                    page.close()
                leftovers.end(self.state)
                self.state.stack.unlink(missing_ok=True)
                tell("Stopped; nothing is left running.")

    async def _live(self, asked_to_stop: asyncio.Event) -> int:
        stopping = asyncio.create_task(asked_to_stop.wait())
        starting = asyncio.create_task(self._start())
        failing = asyncio.create_task(self._supervisor.failure())
        bounding = asyncio.create_task(self._supervisor.bound_logs())
        try:
            await asyncio.wait({stopping, starting, failing}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and not stopping.done():
                starting.result()
                await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done() and not stopping.done():
                raise failing.result()
        except PartFailedError as error:
            tell(f"\n{error}\n")
            return 1
        finally:
            tasks = [stopping, starting, failing, bounding, *self._renewing]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tell("\nStopping ...")
        return 0

    def _listen_for_signals(self) -> asyncio.Event:
        """Set at the first signal; the second ends everything at once."""
        asked = asyncio.Event()

        def receive() -> None:
            if asked.is_set():
                tell("Killing everything.")
                self._supervisor.kill()
            asked.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, receive)
        return asked

    async def _start(self) -> None:
        began = time.monotonic()
        tell(f"GPU Dev starts; its state is in {self.state.root}")
        self.state.put_logs_away()
        secrets = self.state.secrets()
        ports = iter(free_ports(7 + 2 * self._settings.replicas * len(SERVICES)))
        postgres = Postgres(directory=self.state.postgres, port=next(ports), password=secrets.postgres)
        broker = Broker(
            directory=self.state.broker,
            port=next(ports),
            services_password=secrets.broker_services,
            tools_password=secrets.broker_tools,
        )
        cloud = Cloud(directory=self.state.cloud, disks=self.state.disks, port=next(ports))
        github = KeyPages(directory=self.state.github, port=next(ports))
        cluster_port = next(ports)
        applications = Applications(
            directory=self._services,
            postgres=postgres,
            broker=broker,
            cloud=cloud,
            jobs_defaults=self._jobs_defaults(github.url),
            kubeconfig=self._kubeconfig,
            namespace=self._settings.namespace,
            secrets=secrets,
            public_url=self.url,
            ports={name: [next(ports) for _ in range(self._settings.replicas)] for name in SERVICES},
            metrics_ports={name: [next(ports) for _ in range(self._settings.replicas)] for name in SERVICES},
            read_seconds=self._settings.read_seconds,
        )
        ingress = Ingress(
            directory=self.state.ingress,
            port=self._settings.port,
            backends=applications.ports,
            error_port=next(ports),
            hosts_port=None if self._settings.kubeconfig else next(ports),
            read_seconds=self._settings.read_seconds,
            trusted_proxies=self._settings.trusted_proxies,
        )
        make_key_pair(self.state.github, DEMO_USER)
        write_ssh_config(self.state)
        write_command(self.state, self.url)
        await together(
            self._start_database(postgres, applications, secrets.databases),
            self._start_part(broker.part(self._log("nats"))),
            self._start_cloud(cloud),
            self._start_part(github.part(self._log("github"))),
            self._start_cluster(cluster_port),
        )
        await together(*(self._start_part(part, _APPLICATIONS) for part in applications.parts(self.state.logs)))
        self._pages.append(await serve_error_pages(ingress.error_port))
        if ingress.hosts_port is not None:
            self._pages.append(await serve_job_hosts(ingress.hosts_port, self._kubeconfig))
        # Last: it takes a service that is not up yet for a dead one, and looks again only after a second.
        await self._start_part(ingress.part(self._log("traefik")), _INGRESS)
        await self._await_health()
        self._write_env(cloud, broker)
        self._renewing.append(asyncio.create_task(self._renew_env(cloud, broker)))
        tell(banner(self.url, self.state, seconds=time.monotonic() - began))

    def _jobs_defaults(self, github_url: str) -> dict[str, str]:
        settings = {"GPUDEV_GITHUB_URL": github_url, "GPUDEV_SSH_COMMAND": ssh_command(self.state)}
        if self._settings.kubeconfig:
            # A cluster of the user's has the tools image of the user's, or none, and an ingress controller of its own.
            return settings
        job_url = f"http://{{host}}:{self._settings.port}/lab?token={{token}}"
        hosts = {"GPUDEV_JOB_DOMAIN": DOMAIN, "GPUDEV_JOB_URL": job_url}
        at_once = {"GPUDEV_CONCURRENCY": str(_JOBS_PER_CORE * (os.cpu_count() or 1))}
        return {**settings, **hosts, **at_once, "GPUDEV_TOOLS_IMAGE": IMAGE}

    async def _start_database(self, postgres: Postgres, applications: Applications, passwords: dict[str, str]) -> None:
        await asyncio.to_thread(postgres.initialise)
        await self._start_part(postgres.part(self._log("postgres")))
        await asyncio.to_thread(prepare_database, postgres.dsn(), DATABASE, passwords)
        env = {**leftovers.mark(self.state), **applications.migration_environment()}
        await run_once("migrate", self._migrate, log=self._log("migrate"), env=env, cwd=ROOT)

    async def _start_cloud(self, cloud: Cloud) -> None:
        await self._start_part(cloud.part(self._log("moto")))
        self._demo = await asyncio.to_thread(cloud.identity, DEMO_USER)

    async def _start_cluster(self, port: int) -> None:
        if self._settings.kubeconfig is None:
            cluster = Cluster(
                directory=self.state.cluster,
                kubeconfig=self._kubeconfig,
                port=port,
                nodes=self._settings.nodes,
                tools_image=self.state.tools_image,
            )
            self._kubeconfig.unlink(missing_ok=True)
            await self._start_part(cluster.part(self._log("cluster")))
            api = SimulatorApi(self._kubeconfig)
            await asyncio.to_thread(api.ensure_namespace, self._settings.namespace)
            return
        names = ("--kubeconfig", str(self._kubeconfig), "--name", self._settings.namespace)
        argv = (sys.executable, "-m", "deploy.local.namespace", *names)
        # A cluster of the user's may need their environment: credential programs read their own variables.
        env = {**os.environ, **leftovers.mark(self.state)}
        await run_once("namespace", argv, log=self._log("namespace"), env=env, cwd=ROOT)

    async def _await_health(self) -> None:
        """Wait until the whole says that it is well; if it does not, say so and leave the judgement to the person."""
        deadline = time.monotonic() + _HEALTH_SECONDS
        while not await asyncio.to_thread(is_healthy, self.url):
            if time.monotonic() > deadline:
                tell(f"  Not everything is well yet: see {self.url}/health")
                return
            await asyncio.sleep(0.1)

    def _write_env(self, cloud: Cloud, broker: Broker) -> None:
        write_private(self.state.env, exports(self.url, cloud, self._demo, broker, self._kubeconfig))

    async def _renew_env(self, cloud: Cloud, broker: Broker) -> None:
        """Have the demo user of the env file let in by AWS for as long as the stack runs; until cancelled."""
        pause = self._renewal_seconds
        while True:
            await asyncio.sleep(pause)
            try:
                self._demo = await asyncio.to_thread(cloud.identity, DEMO_USER)
                self._write_env(cloud, broker)
                pause = self._renewal_seconds
            except Exception as error:  # noqa: BLE001 - such as a local AWS that is just being started again
                tell(f"  The demo user's AWS session was not renewed ({type(error).__name__}): trying again")
                pause = _RENEWAL_RETRY_SECONDS

    async def _start_part(self, part: Part, level: int = _SERVERS) -> None:
        marked = dataclasses.replace(part, env={**part.env, **leftovers.mark(self.state)})
        await self._supervisor.start(marked, level=level)

    def _write_table(self) -> None:
        table = RunningStack(
            pid=os.getpid(), url=self.url, kubeconfig=str(self._kubeconfig), parts=self._supervisor.running
        )
        write_private(self.state.stack, msgspec.json.format(msgspec.json.encode(table)))

    def _log(self, name: str) -> Path:
        return self.state.logs / f"{name}.log"


def exports(url: str, cloud: Cloud, keys: Keys, broker: Broker, kubeconfig: Path) -> str:
    """Lines for a shell to source: where everything is, and one user's AWS credentials."""
    values = {
        "API_URL": url,
        "AWS_ENDPOINT_URL": cloud.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,  # older tools read only this one
        "AWS_ACCESS_KEY_ID": keys.access_key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
        "AWS_SESSION_TOKEN": keys.session_token or "",
        "NATS_URL": broker.url(TOOLS_USER),
        "KUBECONFIG": str(kubeconfig),
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _number(name: str, text: str | None, *, default: int, highest: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= highest:
        raise SettingError(f"{name} is '{text}': it must be a whole number from 1 to {highest}.")
    return int(text)

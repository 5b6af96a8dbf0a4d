"""Settings of the jobs service."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec

from services.jobs.domain.pod_policy import PodPolicy, parse_capabilities, parse_pull_secrets
from services.jobs.domain.webhook import Network, parse_networks
from shared.contracts.tolerations import parse_tolerations
from shared.settings import CommonSettings, SettingsError

T = TypeVar("T")


class JobsSettings(CommonSettings, frozen=True, kw_only=True):
    kubeconfig: str | None = None
    """Path of a kubeconfig; None: the service account of the pod this runs in."""
    namespace: str = "gpudev"
    """Kubernetes namespace of the jobs' pods. Everything in it that carries our labels is ours."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the GPU resource of pods and nodes."""
    max_waiting_jobs_per_user: int | None = None
    """Jobs of one user that may wait at once, for GPUs or a disk; a further one is refused. None: no limit."""
    max_gpus_per_user: int | None = None
    """GPUs that one user may hold at once; a job that alone wants more is refused. None: no limit."""
    image_pull_policy: str = "IfNotPresent"
    """Of users' images: Always, IfNotPresent or Never."""
    image_pull_secrets: str = ""
    """Names of Secrets in the jobs' namespace, joined by commas, that users' images are pulled with. {user} in a name
    stands for the job's user, small letters and digits as they are, other bytes as `-` and two hexadecimal digits:
    registry-{user} is registry-ann-40example-2ecom for ann@example.com. One that is not there is passed over."""
    tools_image: str | None = None
    """Image of the jobs' tools (deploy/images/tools): SSH and Jupyter. None: bare pods, which run nothing but the job's
    command, for clusters whose nodes only pretend to run containers."""
    tools_pull_policy: str = "IfNotPresent"
    """Of the tools image: Always, IfNotPresent or Never."""
    cpu_per_gpu: int | None = None
    """CPUs that a job gets per GPU, requested and at most. None: at most its GPUs' part of 90 % of what its instance
    type has, and none is requested."""
    memory_gib_per_gpu: int | None = None
    """Memory that a job gets per GPU, in GiB, likewise."""
    layer_gib_per_gpu: int = 50
    """Most that a job may write per GPU elsewhere than in its home, in GiB, before it is evicted."""
    extra_capabilities: str = ""
    """Capabilities of jobs' containers beside what SSH and package managers need, joined by commas, such as
    IPC_LOCK,SYS_PTRACE. The namespace's Pod Security label must allow them."""
    user_namespaces: bool = False
    """Whether root of a job is nobody on its node (hostUsers: false), for clusters that have user namespaces."""
    priority_class: str | None = None
    """PriorityClass of jobs' pods; None: the cluster's default."""
    runtime_class: str | None = None
    """RuntimeClass of jobs' pods; None: the nodes' default."""
    extra_tolerations: str = ""
    """Taints that jobs' pods tolerate beside those of the GPU resource's key: a JSON list as a pod has it, the same for
    capacity."""
    pod_labels: str = ""
    """Labels of jobs' pods beside ours, as a JSON object."""
    pod_annotations: str = ""
    """Annotations of jobs' pods beside ours, as a JSON object."""
    node_host: str = "{ip}"
    """How users reach a node: text with {ip}, its address in the cluster, and {node}, its name in Kubernetes, such as
    {node}.gpu.example.org."""
    ssh_command: str = "ssh -p {port} dev@{host}"
    """How users enter a job: text with {host} and {port}."""
    jupyter_url: str = "http://{host}:{port}/lab?token={token}"
    """Where users find a job's JupyterLab: text with {host}, {port} and {token}."""
    job_domain: str | None = None
    """Domain under which each job's JupyterLab has a host of its own, <first 8 characters of its id>.<domain>: each
    running job then has an Ingress, and *.<domain> has to lead to the ingress controller. None: JupyterLab is found at
    jupyter_url."""
    job_url: str = "https://{host}/lab?token={token}"
    """Where users find a job's JupyterLab when there is a job_domain: text with {host} and {token}."""
    job_tls_secret: str | None = None
    """Name of the Secret in the jobs' namespace with the certificate of *.<job_domain>. None: the controller's own."""
    job_ingress_class: str | None = None
    """IngressClass of jobs' Ingresses; None: the cluster's default."""
    job_ingress_annotations: str = ""
    """Annotations of jobs' Ingresses, as a JSON object."""
    github_url: str = "https://github.com"
    """Where /<name>.keys has people's SSH keys."""
    github_seconds: float = 3.0
    """For one answer of GitHub."""
    access_seconds: float = 90.0
    """How long keys or Jupyter of a running job are tried while GitHub or the pod cannot be reached, and how long a job
    that was submitted with Jupyter is held back until that answers."""
    user_email_domain: str | None = None
    """Shown behind the username in answers' user_id; None: the username alone."""
    disabled_user_grace_seconds: float = 0.0
    """How long jobs of a user who was disabled go on before they are cancelled."""
    grace_seconds: int = 30
    """From asking a pod to end to killing it."""
    shm_gib_per_gpu: int = 16
    """Size of /dev/shm per GPU, in GiB."""
    scratch_gib: int = 100
    """Most that a job without a disk may have in its home, in GiB, before it is evicted."""
    tools_gib: int = 4
    """The same of the volume of a job's tools, which holds a JupyterLab and the end of the command's output."""
    max_total_hours: int = 168
    """No job lives longer than this from its start, extensions included."""
    resync_seconds: float = 5.0
    """Between two looks at a job's pod when no event asks for one."""
    sweep_seconds: float = 30.0
    """Between two searches for pods, services and secrets without a job."""
    line_seconds: float = 10.0
    """Between two questions to capacity whether every waiting job has its entry in the queue."""
    image_fault_seconds: float = 60.0
    """How long an image may fail to be pulled, or a container to be made, before the job fails."""
    refusal_seconds: float = 60.0
    """How long admission or a quota may refuse a job's pod before the job fails; why shows on the job at once."""
    unschedulable_seconds: float = 10.0
    """How long a pod may find no room before its lease is given back."""
    prepare_seconds: float = 3600.0
    """From the lease to a ready pod at most, the pull of a large image included."""
    concurrency: int = 16
    """Jobs that one replica works on at once."""
    job_retention_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] = 365
    """How long a job is kept after its end, with its history and log; then its id is 404."""
    max_followed_logs: int = 20
    """Logs that one user may follow at once, per replica."""
    dial_pods: bool = False
    """Whether SSH over the API goes to the pod's own address, which only a service within the cluster reaches; False:
    to the port of its node."""
    max_ssh_sessions: int = 50
    """SSH sessions that one user may have over the API at once, per replica."""
    max_all_ssh_sessions: int = 500
    """SSH sessions over the API at once, per replica."""
    max_read_logs: int = 20
    """Logs that one user may read at once without following them, per replica."""
    max_event_streams: int = 20
    """Answers that send events as they come which one user may have at once, per replica."""
    max_webhooks: int = 20
    """Webhooks that one user may have."""
    webhook_networks: str = ""
    """Networks that webhooks may be sent to beside public addresses, joined by commas, such as 10.1.0.0/16."""
    max_held_answers: int = 20
    """Answers that `Prefer: wait` holds for one user at once, per replica; one more is given at once."""

    def __post_init__(self) -> None:
        """What cannot be read, and a template that names what there is not, are refused at the start."""
        self.pod_policy()
        self.allowed_webhook_networks()
        try:
            self.node_host.format(ip="", node="")
            self.ssh_command.format(host="", port=0)
            self.jupyter_url.format(host="", port=0, token="")
            self.job_url.format(host="", token="")
        except (LookupError, ValueError) as error:
            raise SettingsError(f"node_host, ssh_command, jupyter_url or job_url: {error}") from error

    def allowed_webhook_networks(self) -> tuple[Network, ...]:
        """Where webhooks may be sent to beside public addresses.

        Raises:
            SettingsError: One is no network.
        """
        return _read("webhook_networks", self.webhook_networks, parse_networks)

    def pod_policy(self) -> PodPolicy:
        """What jobs' pods are to look like.

        Raises:
            SettingsError: A setting cannot be read; the text names it.
        """
        return PodPolicy(
            gpu_resource=self.gpu_resource,
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=_read("image_pull_secrets", self.image_pull_secrets, parse_pull_secrets),
            grace_seconds=self.grace_seconds,
            shm_gib_per_gpu=self.shm_gib_per_gpu,
            scratch_gib=self.scratch_gib,
            tools_gib=self.tools_gib,
            layer_gib_per_gpu=self.layer_gib_per_gpu,
            tools_image=self.tools_image,
            tools_pull_policy=self.tools_pull_policy,
            cpu_per_gpu=self.cpu_per_gpu,
            memory_gib_per_gpu=self.memory_gib_per_gpu,
            extra_capabilities=_read("extra_capabilities", self.extra_capabilities, parse_capabilities),
            user_namespaces=self.user_namespaces,
            priority_class=self.priority_class,
            runtime_class=self.runtime_class,
            extra_tolerations=_read("extra_tolerations", self.extra_tolerations, parse_tolerations),
            labels=_read("pod_labels", self.pod_labels, _parse_texts),
            annotations=_read("pod_annotations", self.pod_annotations, _parse_texts),
            job_domain=self.job_domain,
            job_tls_secret=self.job_tls_secret,
            job_ingress_class=self.job_ingress_class,
            job_ingress_annotations=_read("job_ingress_annotations", self.job_ingress_annotations, _parse_texts),
            prepare_seconds=self.prepare_seconds,
            longest_seconds=self.max_total_hours * 3600,
        )


def _read(name: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(f"GPUDEV_{name.upper()}: {error}") from error


def _parse_texts(text: str) -> dict[str, str]:
    return msgspec.json.decode(text or "{}", type=dict[str, str])

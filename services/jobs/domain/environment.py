"""A job's HOME, the variables that every job has, and the names that belong to the platform."""

HOME = "/home/dev"
"""In every job: its disk where it has one, else scratch that goes with it."""
MAX_NAME_LENGTH = 253
"""Of a variable: its value is an item of a Secret, and Kubernetes allows no longer names for those."""
MAX_PATH_BYTES = 1024
DEFAULTS = {"LOGNAME": "dev", "PYTHONUNBUFFERED": "1", "USER": "dev"}
"""Unless the user says otherwise. Without the second a Python program's lines are held back by the 8 KB, and are lost
when it is killed; the others are what programs need that ask who runs them where the image knows no such user."""

RESERVED_NAMES = (
    "NVIDIA_DISABLE_REQUIRE",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_GDRCOPY",
    "NVIDIA_GDS",
    "NVIDIA_IMEX_CHANNELS",
    "NVIDIA_MOFED",
    "NVIDIA_NVSWITCH",
    "NVIDIA_VISIBLE_DEVICES",
)
"""What NVIDIA's container runtime obeys: a container that sets them sees GPUs and devices that it was not given."""
RESERVED_PREFIXES = (
    "DOCKER_RESOURCE_",
    "GPUDEV_",
    "KUBERNETES_",
    "NVIDIA_CONTAINER_",
    "NVIDIA_CTK_",
    "NVIDIA_MIG_",
    "NVIDIA_REQUIRE_",
)
"""Of that runtime, of Kubernetes, and ours. Other names of NVIDIA's, such as NVIDIA_TF32_OVERRIDE, are programs'."""


def is_reserved(name: str) -> bool:
    """Whether a variable's name belongs to the platform."""
    return name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES)


def literal(text: str) -> str:
    """`text` as the command of a container has to have it for the container to get `text`.

    Kubernetes replaces `$(NAME)` and `$$` in commands and arguments, whatever the shell's quotes say.
    https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    """
    return text.replace("$", "$$")

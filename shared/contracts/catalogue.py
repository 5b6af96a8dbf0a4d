"""Instance types that may be asked for, and what one node of each has."""

import msgspec


class InstanceType(msgspec.Struct, frozen=True):
    name: str
    """AWS's name, case-sensitive."""
    gpu_type: str
    """h100, a100, ...: lower case."""
    gpus_per_node: int
    cpus: int
    """vCPUs of a node."""
    memory_gib: int
    """Memory of a node."""
    product_prefixes: tuple[str, ...] = ()
    """Beginnings of the node label nvidia.com/gpu.product that mean this GPU type, when no instance type is told."""


CATALOGUE: tuple[InstanceType, ...] = (
    InstanceType("p5.48xlarge", "h100", 8, 192, 2048, ("NVIDIA-H100",)),
    InstanceType("p4d.24xlarge", "a100", 8, 96, 1152, ("NVIDIA-A100",)),
    InstanceType("p5e.48xlarge", "h200", 8, 192, 2048, ("NVIDIA-H200",)),
    InstanceType("p5en.48xlarge", "h200", 8, 192, 2048),
    InstanceType("p6-b200.48xlarge", "b200", 8, 192, 2048, ("NVIDIA-B200",)),
    InstanceType("g6.12xlarge", "l4", 4, 48, 192, ("NVIDIA-L4",)),
    InstanceType("g5.12xlarge", "a10g", 4, 48, 192, ("NVIDIA-A10G",)),
    InstanceType("g4dn.12xlarge", "t4", 4, 48, 192, ("Tesla-T4", "NVIDIA-T4")),
)

INSTANCE_TYPES: dict[str, InstanceType] = {instance.name: instance for instance in CATALOGUE}


def gpu_type_of_node(instance_type: str | None, gpu_product: str | None) -> str | None:
    """GPU type of a node by its labels; None when neither label is known.

    Args:
        instance_type: Label node.kubernetes.io/instance-type, which wins.
        gpu_product: Label nvidia.com/gpu.product, as NVIDIA's GPU feature discovery writes it.
    """
    if instance_type in INSTANCE_TYPES:
        return INSTANCE_TYPES[instance_type].gpu_type
    for instance in CATALOGUE:
        for prefix in instance.product_prefixes:
            if gpu_product and (gpu_product == prefix or gpu_product.startswith(prefix + "-")):
                return instance.gpu_type
    return None

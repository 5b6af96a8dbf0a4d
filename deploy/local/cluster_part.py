"""The Kubernetes simulator as a part of the stack."""

import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.part import Part
from deploy.local.ports import accepts
from deploy.local.tools.image import IMAGE, INITS, MODULE, PROBES, make_image

DEMO_FLEET = "p5.48xlarge,p5.48xlarge,p4d.24xlarge,p4d.24xlarge"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where one simulator lives and what it simulates."""

    directory: Path
    kubeconfig: Path
    """Written by the simulator when it serves."""
    port: int
    nodes: str = DEMO_FLEET
    """Instance type of each node, separated by commas."""

    tools_image: Path
    """Where the files of the jobs' tools image are laid out."""

    def part(self, log: Path) -> Part:
        """The simulator's process; lays out the tools image."""
        program = make_image(self.tools_image)
        where = ["--state", str(self.directory), "--port", str(self.port), "--kubeconfig", str(self.kubeconfig)]
        files = ("--image", f"{IMAGE}={self.tools_image}", "--program", f"{program}={MODULE}")
        image = (*files, "--probe", f"{program}={PROBES}", "--init", f"{program}={INITS}")
        return Part(
            name="cluster",
            argv=(sys.executable, "-m", "deploy.local.cluster", *where, "--nodes", self.nodes, *image),
            log=log,
            ready=self.is_ready,
            cwd=Path(__file__).parents[2],
            port=self.port,
        )

    def is_ready(self) -> bool:
        """Whether it has written its kubeconfig and accepts connections."""
        return self.kubeconfig.exists() and accepts(self.port)

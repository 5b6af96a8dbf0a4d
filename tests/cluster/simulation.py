"""The simulator as a subprocess, as a user starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from deploy.local.ports import free_ports

ROOT = Path(__file__).parents[2]
NODES = "p5.48xlarge,p5.48xlarge,p4d.24xlarge,p4d.24xlarge"


class Simulation:
    """One state directory and port; can be killed and started again."""

    def __init__(self, state: Path, *arguments: str, nodes: str = NODES) -> None:
        self.state, self.port = state, free_ports(1)[0]
        self.kubeconfig = state / "kubeconfig"
        self._arguments = ["--state", str(state), "--port", str(self.port), "--nodes", nodes, *arguments]
        self._log = state.with_suffix(".log")
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local.cluster", *self._arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        line = self.process.stdout.readline()
        assert line.startswith("cluster: "), self._log.read_text()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it as Ctrl-C does."""
        self._end(signal.SIGTERM)

    def log(self) -> str:
        return self._log.read_text()

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
        self.process = None

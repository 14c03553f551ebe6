"""What lies where in a cluster's state folder, and what is remembered there.

Paths and remembered values only; the files themselves are written by the modules that own their
content.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from localcluster.files import write_atomically

_MARKER = "localcluster.json"
_VERSION = 1


class StateError(Exception):
    """The state folder cannot be used as asked; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The TCP ports of one cluster, all on 127.0.0.1."""

    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int
    kubelet: int

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every port's name."""
        return tuple(field.name for field in fields(cls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What a later run needs to use or end the cluster."""

    ports: Ports
    programs: dict[str, Path]


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one state folder."""

    state: Path

    @property
    def marker(self) -> Path:
        """The file that makes a folder a state folder."""
        return self.state / _MARKER

    @property
    def lock(self) -> Path:
        """Held while the cluster goes up or down; beside the folder, which comes and goes."""
        return self.state.with_name(f".{self.state.name}.lock")

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def run(self) -> Path:
        """Records of running processes."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """Output of the processes."""
        return self.state / "logs"

    @property
    def etcd(self) -> Path:
        """The data of etcd."""
        return self.state / "etcd"

    @property
    def kubeconfigs(self) -> Path:
        """Kubeconfigs of all but the administrator."""
        return self.state / "kubeconfigs"

    def kubeconfig(self, name: str) -> Path:
        """The kubeconfig of one identity."""
        return self.kubeconfigs / f"{name}.kubeconfig"

    @property
    def admin_kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "admin.kubeconfig"

    @property
    def scheduler_config(self) -> Path:
        """The configuration that kube-scheduler runs with."""
        return self.state / "scheduler.yaml"

    @property
    def kubectl_cache(self) -> Path:
        """What kubectl keeps; its default is the user's home."""
        return self.state / "kubectl"

    @property
    def simulation(self) -> Path:
        """Files for simulated nodes."""
        return self.state / "simulated"

    @property
    def node(self) -> Path:
        """Everything of the real node."""
        return self.state / "node"

    @property
    def enclosure(self) -> Path:
        """What a cluster in an enclosure writes to the machine's folders."""
        return self.state / "enclosure"

    def create(self, remembered: Remembered) -> None:
        """Make the folder and keep `remembered` in it; refuse a folder that holds anything else."""
        if self.marker.exists():
            raise StateError(
                f"{self.state} holds a cluster already; end it with"
                f" `python -m localcluster down --state {self.state}`, or choose another --state"
            )
        if self.state.exists() and any(self.state.iterdir()):
            raise StateError(f"{self.state} is not empty and no cluster's; choose another --state")
        self.state.mkdir(parents=True, exist_ok=True)
        # Keys lie here.
        self.state.chmod(0o700)
        self.remember(remembered)

    def remember(self, remembered: Remembered) -> None:
        """Keep `remembered` for later runs."""
        content = {
            "v": _VERSION,
            "ports": asdict(remembered.ports),
            "programs": {name: str(path) for name, path in remembered.programs.items()},
        }
        write_atomically(self.marker, json.dumps(content, indent=2).encode() + b"\n")

    def recall(self) -> Remembered:
        """What was remembered, or `StateError` where no cluster is here."""
        try:
            content = json.loads(self.marker.read_text())
            if content["v"] != _VERSION:
                raise StateError(
                    f"{self.marker} was written by another version; use that to end it"
                )
            return Remembered(
                ports=Ports(**content["ports"]),
                programs={name: Path(path) for name, path in content["programs"].items()},
            )
        except FileNotFoundError:
            raise StateError(
                f"no cluster in {self.state}; start one with"
                f" `python -m localcluster up --state {self.state}`"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{self.marker} cannot be read: {error}") from error

    def remove(self) -> None:
        """Remove the folder with all that is in it, if it is a state folder."""
        if self.marker.exists():
            # The marker goes last, so that an interrupted removal can be repeated.
            for path in self.state.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path != self.marker:
                    path.unlink()
            self.marker.unlink()
            self.state.rmdir()

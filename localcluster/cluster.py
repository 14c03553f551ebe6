"""One cluster in one state folder: what the demo, the tests and the benchmark use.

Everything is put together here; how each part is run is in the modules beside this one.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from localcluster.api import ApiClient, ApiError, Object
from localcluster.controlplane import PARTS as CONTROL_PLANE_PARTS
from localcluster.controlplane import ControlPlane, ControlPlaneOptions, Restartable
from localcluster.guard import Guard
from localcluster.image.make import image_archives
from localcluster.kubeconfig import write_kubeconfig
from localcluster.layout import Layout, Ports, Remembered
from localcluster.node.enclosure import ADDRESS, Enclosure
from localcluster.node.machine import check_rights
from localcluster.node.real import ENCLOSED_PARTS, RealNode, check_place, remove_node
from localcluster.node.real import PARTS as NODE_PARTS
from localcluster.node.slot import going_down, going_up
from localcluster.parts.locks import exclusive
from localcluster.parts.obtain import ensure
from localcluster.parts.progress import Progress, SilentProgress
from localcluster.ports import free_ports
from localcluster.processes import Processes
from localcluster.scheduler import Scheduler
from localcluster.settings import Settings, default_settings
from localcluster.simulated import PART as KWOK
from localcluster.simulated import NodeTemplate, Simulation
from localcluster.waiting import WaitedTooLong, until

_TOKEN_LIFETIME = 8 * 3600


class KubectlError(Exception):
    """kubectl ended with an error; the text is what it said."""


class LocalCluster:
    """A cluster that this object starts and ends, or one that another run started.

    As a context manager it starts the cluster and takes it down at the end, also when this process
    is killed. An `enclosed` one has a real node with a pod network and Services, in namespaces of
    its own (`localcluster.node.enclosure`).
    """

    def __init__(
        self,
        state: Path | None = None,
        *,
        node: bool = False,
        enclosed: bool = False,
        options: ControlPlaneOptions | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._settings = settings or default_settings()
        self._progress = progress or SilentProgress()
        self._options = options or ControlPlaneOptions()
        if enclosed:
            self._options = replace(self._options, advertised=ADDRESS)
        self._with_node = node or enclosed
        self._enclosed = enclosed
        self._layout = Layout((state or self._settings.state).absolute())
        self._guard: Guard | None = None
        self._client: ApiClient | None = None
        self._running: ControlPlane | None = None
        self.processes = Processes(
            run=self._layout.run, logs=self._layout.logs, environment=self._settings.environment
        )

    def __enter__(self) -> Self:
        self.start(guarded=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    # Going up and down

    def start(self, *, guarded: bool = False) -> None:
        """Start the control plane, and the real node if asked for, and return when both are ready.

        A `guarded` cluster ends with this process. Whatever fails, nothing is left running.
        """
        if self._with_node:
            check_rights()
        node_parts = ENCLOSED_PARTS if self._enclosed else NODE_PARTS
        wanted = [*CONTROL_PLANE_PARTS, *(node_parts if self._with_node else ())]
        programs = dict(ensure(wanted, settings=self._settings, progress=self._progress))
        ports = dict(zip(Ports.names(), free_ports(len(Ports.names())), strict=True))
        with ExitStack() as held:
            slot = held.enter_context(self._machine_slot()) if self._with_node else None
            with self._exclusively():
                self._layout.create(Remembered(ports=Ports(**ports), programs=programs))
            try:
                if guarded:
                    self._guard = Guard(self.state, environment=self._settings.environment)
                if self._enclosed and slot is not None:
                    enclosure = Enclosure(self._layout, processes=self.processes)
                    enclosure.start(ports.values(), slot=slot)
                self._control_plane.start(self._options)
                if slot is not None:
                    images = image_archives(self._settings, progress=self._progress)
                    search_path = self._settings.search_path
                    self.node.start(images=images, search_path=search_path, slot=slot)
            except BaseException:
                held.close()
                self.down()
                raise

    def down(self) -> None:
        """End the cluster and all that belongs to it; harmless where there is none."""
        if self._client is not None:
            self._client.close()
        self._client = self._running = None
        with self._exclusively():
            if self._layout.node.exists():
                with going_down(waiting=self._progress.note):
                    self.processes.stop_all()
                    remove_node(self._layout)
            self.processes.stop_all()
            self._layout.remove()
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    # Reaching it

    @property
    def state(self) -> Path:
        """The state folder."""
        return self._layout.state

    @property
    def exists(self) -> bool:
        """Whether a cluster is in the state folder, running or not."""
        return self._layout.marker.exists()

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._control_plane.server

    @property
    def ca_file(self) -> Path:
        """The certificate that the API server's one is signed with."""
        return self._control_plane.authority.certificate

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig with all rights."""
        return self._layout.admin_kubeconfig

    @property
    def api(self) -> ApiClient:
        """Plain requests with all rights."""
        if self._client is None:
            self._client = self._control_plane.api()
        return self._client

    @property
    def node(self) -> RealNode:
        """The real node; only of use where the cluster was started with one."""
        return RealNode(
            self._layout,
            control_plane=self._control_plane,
            port=self._layout.recall().ports.kubelet,
            programs=self._layout.recall().programs,
            processes=self.processes,
        )

    def reboot_node(self) -> None:
        """Reboot the node of an enclosed cluster, as far as its pods can tell; returns when it is
        ready again.
        """
        self.node.reboot(search_path=self._settings.search_path)

    def program(self, name: str) -> Path:
        """Where the program of a part lies that this cluster runs with."""
        return self._layout.recall().programs[name]

    @property
    def scheduler(self) -> Scheduler:
        """kube-scheduler, to stop it or to look at its metrics."""
        return self._control_plane.scheduler

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """What the real kubectl prints for `arguments`; `KubectlError` with its complaint on
        failure.

        With `check=False` its complaint is returned after its output instead.
        """
        outcome = subprocess.run(
            [
                self.program("kubectl"),
                f"--kubeconfig={self.admin_kubeconfig}",
                f"--cache-dir={self._layout.kubectl_cache}",
                *arguments,
            ],
            env=dict(self._settings.environment),
            input=stdin or "",
            capture_output=True,
            text=True,
            check=False,
        )
        if not check:
            return outcome.stdout + outcome.stderr
        if outcome.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {outcome.stderr.strip()}")
        return outcome.stdout

    def apply(self, sources: Iterable[Path | Object]) -> str:
        """Apply files, folders and objects on the server's side, with what kubectl says."""
        given = list(sources)
        options = ["--server-side", "--force-conflicts", "--field-manager=localcluster"]
        files = [f"--filename={source}" for source in given if isinstance(source, Path)]
        objects = [source for source in given if not isinstance(source, Path)]
        said = self.kubectl("apply", *options, *files) if files else ""
        if objects:
            items = {"apiVersion": "v1", "kind": "List", "items": objects}
            said += self.kubectl("apply", *options, "--filename=-", stdin=json.dumps(items))
        return said

    def wait_for(
        self, path: str, predicate: Callable[[Object], bool], *, timeout: float = 30.0
    ) -> Object:
        """The object or list at an API path as soon as `predicate` holds for it.

        An object that does not exist yet is waited for. Raises `WaitedTooLong` with what was there
        last.
        """
        last: Object | None = None

        def probe() -> Object | None:
            nonlocal last
            last = self._get_if_there(path)
            return last if last is not None and predicate(last) else None

        try:
            return until(probe, timeout=timeout, what=path)
        except WaitedTooLong as error:
            seen = "nothing" if last is None else json.dumps(last.get("status", last))[:2000]
            raise WaitedTooLong(f"{error}; there is {seen}") from None

    # Identities

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A new kubeconfig with a client certificate for `user` in `groups`."""
        target = self._layout.kubeconfig(_file_name(user))
        return self._control_plane.kubeconfig_for(user, groups, target=target)

    def service_account_kubeconfig(
        self, namespace: str, name: str, *, node: str | None = None
    ) -> Path:
        """A new kubeconfig with a token of a service account, valid for eight hours.

        With `node` the token is bound to that Node and carries its name, as a pod's token would
        (ServiceAccountTokenNodeBinding, KEP-4193).
        """
        spec: Object = {"expirationSeconds": _TOKEN_LIFETIME}
        if node is not None:
            uid = self.api.get(f"/api/v1/nodes/{node}")["metadata"]["uid"]
            reference = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
            spec["boundObjectRef"] = reference
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token = str(self.api.create(path, request)["status"]["token"])
        target = self._layout.kubeconfig(
            _file_name("-".join(filter(None, (namespace, name, node))))
        )
        write_kubeconfig(target, server=self.server, ca_file=self.ca_file, credentials=token)
        return target

    # The scheduler

    def restart_scheduler(self, config: Path | None = None) -> None:
        """Run kube-scheduler with another KubeSchedulerConfiguration, or the default one."""
        self.scheduler.stop()
        self.scheduler.start(config)

    def stop_scheduler(self) -> None:
        """Stop kube-scheduler; `restart_scheduler` starts it again."""
        self.scheduler.stop()

    # Trouble

    def restart(self, part: Restartable) -> None:
        """Kill etcd or kube-apiserver and start it again; returns when the API server is ready.

        Only for a cluster that this object started: another run's options are not known here.
        """
        self._control_plane.restart(part, self._options)

    def compact_etcd(self) -> int:
        """Let etcd forget all that was before its current revision; returns that one."""
        return self._control_plane.compact()

    # Simulated nodes

    def create_simulated_nodes(
        self, names: Iterable[str], template: NodeTemplate | None = None, *, timeout: float = 60.0
    ) -> None:
        """Create nodes with heartbeats, on which pods come to run as far as the API shows.

        Returns when all are ready. KWOK is obtained and started at the first call.
        """
        programs = ensure([KWOK], settings=self._settings, progress=self._progress)
        simulation = Simulation(self.api, processes=self.processes)
        simulation.run_kwok(
            programs[KWOK],
            kubeconfig=self.kubeconfig_for("kwok", ["system:masters"]),
            work_folder=self._layout.simulation,
        )
        simulation.create_managed(template or NodeTemplate(), names, timeout=timeout)

    def create_bare_nodes(self, names: Iterable[str], template: NodeTemplate | None = None) -> None:
        """Create nodes that are ready but send no heartbeats and run nothing, for scheduling at
        scale.

        Start the cluster with `node_lifecycle=False`.
        """
        simulation = Simulation(self.api, processes=self.processes)
        simulation.create_bare(template or NodeTemplate(), names)

    # Within

    @property
    def _control_plane(self) -> ControlPlane:
        if self._running is None:
            remembered = self._layout.recall()
            self._running = ControlPlane(
                self._layout,
                ports=remembered.ports,
                programs=remembered.programs,
                processes=self.processes,
            )
        return self._running

    @contextmanager
    def _machine_slot(self) -> Iterator[int]:
        patience, note = self._settings.node_patience, self._progress.note
        with going_up(self.state, patience=patience, waiting=note) as slot:
            check_place(self._layout)
            yield slot

    def _get_if_there(self, path: str) -> Object | None:
        try:
            return self.api.get(path)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def _exclusively(self) -> AbstractContextManager[None]:
        note = f"another run is changing the cluster in {self.state}; waiting for it"
        return exclusive(self._layout.lock, waiting=lambda: self._progress.note(note))


def _file_name(identity: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", identity)

"""The container runtime: it reads its configuration, and knows NVIDIA's handler."""

from __future__ import annotations

from doctor import remedies
from doctor.checks.hardware import HOST_GPU
from doctor.checks.toolkit import is_needed
from doctor.facts.facts import Facts
from doctor.facts.host import Distribution
from doctor.facts.runtime import HANDLER
from doctor.findings import Check, Result, broken, not_applicable, ok, unknown, warning

_RANCHER = (Distribution.K3S, Distribution.RKE2)
_CDI_BY_DEFAULT, _CDI_KNOWN = (2, 0), (1, 7)
#: Seconds by which a file may be newer than the process that read it, clocks being clocks.
_SLACK = 5.0


def _syntax(facts: Facts) -> Result:
    runtime = facts.host.runtime
    if runtime.fault:
        return broken(
            runtime.fault[:300],
            f"sudo containerd --config {runtime.config_path} config dump"
            if runtime.kind == "containerd"
            else "sudo crio config --default",
            remedies.restart_runtime(facts.host),
        )
    if not runtime.config_exists:
        return ok(f"no {runtime.config_path}; the runtime has its defaults")
    return ok(f"{runtime.config_path}, version {runtime.config_version}")


def _cri(facts: Facts) -> Result:
    runtime = facts.host.runtime
    if not runtime.disabled:
        return ok("the CRI plugin is on")
    return broken(
        f'{runtime.config_path} has disabled_plugins = ["{runtime.disabled[0]}"], as packages for'
        " Docker come",
        f"sudo sed -i 's/^disabled_plugins.*/disabled_plugins = []/' {runtime.config_path}",
        remedies.restart_runtime(facts.host),
    )


def _imports(facts: Facts) -> Result:
    runtime = facts.host.runtime
    ignored = [each for each in runtime.unimported if not runtime.nvidia()]
    if not ignored:
        return ok("every drop-in with NVIDIA's runtime is imported")
    path = ignored[0]
    host = facts.host
    if host.distribution in _RANCHER:
        right = "config-v3.toml.d" if runtime.config_version >= 3 else "config.toml.d"
        folder = runtime.config_path.rpartition("/")[0]
        return broken(
            f"{path} is not imported: the rendered configuration is of version"
            f" {runtime.config_version}, whose drop-ins are in {right}",
            f"sudo mkdir -p {folder}/{right} && sudo mv {path} {folder}/{right}/",
            remedies.restart_runtime(host),
        )
    folder = path.rpartition("/")[0]
    return broken(
        f"{path} is not imported by {runtime.config_path}",
        f'# put at the top of {runtime.config_path}:  imports = ["{folder}/*.toml"]',
        remedies.restart_runtime(host),
    )


def _sections(facts: Facts) -> Result:
    runtime = facts.host.runtime
    if runtime.nvidia() or not runtime.misplaced:
        return ok("NVIDIA's runtime is in a section that is read")
    wrong = runtime.misplaced[0]
    of = f"is of version {wrong.file_version}" if wrong.file_version else "names no version"
    saw = (
        f'section plugins."{wrong.section}" of {wrong.path} is of version {wrong.section_version},'
        f" and the file {of}, so it is ignored"
    )
    if wrong.section_version >= 3:
        rename = "s/io\\.containerd\\.cri\\.v1\\.runtime/io.containerd.grpc.v1.cri/"
    elif wrong.file_version:
        rename = "s/io\\.containerd\\.grpc\\.v1\\.cri/io.containerd.cri.v1.runtime/"
    else:
        rename = f"1i version = {wrong.section_version}"
    return broken(saw, f"sudo sed -i '{rename}' {wrong.path}", remedies.restart_runtime(facts.host))


def _template(facts: Facts) -> Result:
    host, runtime = facts.host, facts.host.runtime
    if host.distribution not in _RANCHER:
        return not_applicable("only K3s and RKE2 render their configuration from templates")
    names = [path.rpartition("/")[2] for path in runtime.templates]
    if not names or runtime.nvidia() or facts.own_cdi() or not host.toolkit.installed_at:
        return ok(f"templates: {', '.join(names) or 'none of your own'}")
    folder = runtime.config_path.rpartition("/")[0]
    return broken(
        f"{', '.join(runtime.templates)} replaces the built-in template, and has no NVIDIA runtime",
        f"sudo mv {folder}/{names[0]} {folder}/{names[0]}.old",
        f'# or begin it with {{{{ template "base" . }}}}, which brings what {host.distribution}'
        " detects",
        remedies.restart_runtime(host),
    )


def _restart(facts: Facts) -> Result:
    host, runtime = facts.host, facts.host.runtime
    if host.distribution not in _RANCHER:
        return not_applicable("only K3s and RKE2 look for NVIDIA's runtime at their start")
    blind = host.toolkit.installed_at and runtime.config_exists and not runtime.templates
    if not blind or runtime.nvidia() or runtime.fault or facts.own_cdi():
        return ok("nothing that it missed at its start")
    return broken(
        f"{host.distribution} wrote {runtime.config_path} without NVIDIA's runtime, though the"
        " toolkit is there: it looks for it only when it starts",
        remedies.restart_runtime(host),
        f"grep nvidia {runtime.config_path}",
    )


def _handler(facts: Facts) -> Result:
    runtime = facts.host.runtime
    if found := runtime.nvidia():
        return ok(", ".join(f"{h.name} ({h.binary or 'no binary named'})" for h in found))
    if runtime.fault:
        return unknown("the configuration cannot be read")
    if not runtime.config_exists and not runtime.sockets:
        return not_applicable("no container runtime of Kubernetes on this machine yet")
    if not is_needed(facts):
        return ok("no NVIDIA handler, and none needed: gpudetour hands GPUs over by CDI")
    return broken(
        f'{runtime.kind} has no runtime named "{HANDLER}"'
        f" (handlers: {', '.join(sorted(runtime.handlers)) or 'none'})",
        *remedies.configure_runtime(facts.host),
    )


def _binary(facts: Facts) -> Result:
    lost = [h for h in facts.host.runtime.nvidia() if h.binary and not h.file]
    if not lost:
        return ok("the programs of all NVIDIA handlers are there")
    return broken(
        f'handler "{lost[0].name}" runs {lost[0].binary}, which does not exist or may not be run',
        *remedies.install_toolkit(facts.host),
        *remedies.configure_runtime(facts.host),
    )


def _default(facts: Facts) -> Result:
    runtime = facts.host.runtime
    if not runtime.default:
        return ok("the default runtime is runc")
    if runtime.default in runtime.handlers or runtime.default in ("runc", "crun"):
        return ok(f"the default runtime is {runtime.default}")
    return broken(
        f'the default runtime is "{runtime.default}", which is not configured: no pod at all can'
        " start",
        *remedies.configure_runtime(facts.host),
    )


def _cgroup(facts: Facts) -> Result:
    handlers = facts.host.runtime.handlers
    runc = handlers.get("runc")
    if runc is None or runc.systemd_cgroup is not True:
        return not_applicable("runc does not use systemd's cgroups, or says nothing of it")
    odd = [h.name for h in facts.host.runtime.nvidia() if not h.systemd_cgroup]
    if not odd:
        return ok("NVIDIA's handlers use systemd's cgroups, as runc does")
    return warning(
        f'handler "{odd[0]}" lacks SystemdCgroup = true, which runc has: its pods are killed or'
        " their limits ignored",
        *remedies.configure_runtime(facts.host),
    )


def _running(facts: Facts) -> Result:
    runtime = facts.host.runtime
    if not runtime.started_at or not runtime.changed_at:
        return not_applicable("it is not known when the runtime started")
    if facts.host.distribution is not Distribution.UPSTREAM:
        return not_applicable(f"{facts.host.distribution} writes it whenever it starts the runtime")
    if runtime.changed_at <= runtime.started_at + _SLACK:
        return ok(f"{runtime.kind} started after its configuration was written")
    # What else was changed may not matter to GPUs.
    tell = broken if runtime.nvidia_changed_at > runtime.started_at + _SLACK else warning
    return tell(
        f"the configuration was changed after {runtime.kind} started, which reads it only then",
        remedies.restart_runtime(facts.host),
    )


def _cdi(facts: Facts) -> Result:
    runtime = facts.host.runtime
    kind, version = facts.runtime_version()
    users = [
        plugin.name
        for plugin in facts.plugins_here()
        if "cdi" in plugin.settings.get("device-list-strategy", "")
    ]
    who = users[0] if users else ("gpudetour's agent" if facts.own_cdi() else "")
    if not who or kind == "cri-o":
        return not_applicable("nobody hands GPUs over by CDI names" if not who else "CRI-O has CDI")
    shown = ".".join(map(str, version)) or "of unknown version"
    if runtime.enable_cdi is False or (
        version and version < _CDI_BY_DEFAULT and runtime.enable_cdi is None
    ):
        section = (
            "io.containerd.cri.v1.runtime"
            if runtime.config_version >= 3
            else "io.containerd.grpc.v1.cri"
        )
        if version and version < _CDI_KNOWN:
            return broken(
                f"{who} hands GPUs over by CDI names, which containerd {shown} does not know",
                "# update containerd to 1.7 or later",
            )
        return broken(
            f"{who} hands GPUs over by CDI names, and CDI is off in containerd {shown}",
            f'# in {runtime.config_path}:  [plugins."{section}"]  enable_cdi = true',
            remedies.restart_runtime(facts.host),
        )
    return ok(f"containerd {shown} turns CDI names into devices")


_READ = ("containerd-config", "containerd-cri")

CHECKS = (
    Check(
        id="containerd-config",
        title="The runtime can read its configuration",
        why="with a syntax error it does not start again, or runs on with what it read before",
        look=_syntax,
        needs=HOST_GPU,
    ),
    Check(
        id="containerd-cri",
        title="containerd's CRI plugin is on",
        why="kubelet speaks to it; packages for Docker switch it off",
        look=_cri,
        needs=HOST_GPU,
    ),
    Check(
        id="containerd-imports",
        title="Drop-ins with NVIDIA's runtime are imported",
        why="a file that nothing imports has no effect, and nothing says so. K3s reads"
        " config.toml.d for containerd 1.7 and config-v3.toml.d for 2.x",
        look=_imports,
        needs=HOST_GPU,
        causes=_READ,
    ),
    Check(
        id="containerd-sections",
        title="NVIDIA's runtime is in a section of the file's version",
        why="containerd ignores sections of other versions without a word",
        look=_sections,
        needs=HOST_GPU,
        causes=_READ,
    ),
    Check(
        id="k3s-template",
        title="A template of K3s or RKE2 keeps NVIDIA's runtime",
        why="a template of your own replaces the built-in one, and config.toml.tmpl keeps"
        " containerd 2 on version 2 unless config-v3.toml.tmpl exists",
        look=_template,
        needs=HOST_GPU,
        causes=("containerd-imports", "containerd-sections"),
    ),
    Check(
        id="k3s-restart",
        title="K3s or RKE2 was started after the toolkit was installed",
        why="it looks for NVIDIA's runtime at its start only",
        look=_restart,
        needs=HOST_GPU,
        causes=("containerd-imports", "containerd-sections", *_READ),
    ),
    Check(
        id="nvidia-handler",
        title="The runtime has a handler for NVIDIA",
        why='pods with runtimeClassName nvidia fail otherwise: "no runtime for nvidia is'
        ' configured"',
        look=_handler,
        needs=HOST_GPU,
        causes=(
            *_READ,
            "toolkit-installed",
            "containerd-imports",
            "containerd-sections",
            "k3s-template",
            "k3s-restart",
        ),
    ),
    Check(
        id="handler-binary",
        title="The handler's program exists",
        why="the configuration outlives the toolkit when that is removed or moved",
        look=_binary,
        needs=HOST_GPU,
        causes=("toolkit-installed",),
    ),
    Check(
        id="default-runtime",
        title="The default runtime is configured",
        why="every pod without a runtime class uses it, system pods included",
        look=_default,
        needs=HOST_GPU,
        causes=("containerd-imports", "containerd-sections", *_READ),
    ),
    Check(
        id="handler-cgroup",
        title="NVIDIA's handler uses the cgroup driver of the others",
        why="two managers of one cgroup tree disagree sooner or later",
        look=_cgroup,
        needs=HOST_GPU,
    ),
    Check(
        id="runtime-restarted",
        title="The runtime was started after its configuration was changed",
        why="what stands in the file is not what it does",
        look=_running,
        needs=HOST_GPU,
    ),
    Check(
        id="cdi-enabled",
        title="The runtime turns CDI names into devices",
        why="otherwise containers start without their GPU, and nothing says so",
        look=_cdi,
        needs=HOST_GPU,
    ),
)

"""NVIDIA's driver: installed, loaded, with its device nodes and the library of the same version."""

from __future__ import annotations

from doctor import remedies
from doctor.checks.hardware import HOST_GPU
from doctor.facts.facts import Facts
from doctor.facts.host import NVML_TIMED_OUT
from doctor.findings import Check, Result, broken, not_applicable, ok, unknown, warning

_HELD = ("nouveau", "vfio-pci", "pci-stub", "nova", "nova_core")


def _installed(facts: Facts) -> Result:
    driver = facts.host.driver
    if facts.host.is_wsl or facts.host.is_tegra:
        return not_applicable("the driver is part of the system here")
    if driver.version or driver.built_for or driver.library:
        return ok("NVIDIA's driver is installed")
    return broken(
        "neither a kernel module nor libnvidia-ml.so.1 of NVIDIA's driver",
        *remedies.install_driver(facts.host),
    )


def _for_kernel(facts: Facts) -> Result:
    driver, kernel = facts.host.driver, facts.host.kernel
    if driver.version or not driver.built_for:
        return not_applicable("the driver is loaded" if driver.version else "no module files")
    if not kernel or kernel in driver.built_for:
        return ok(f"there is a module for kernel {kernel}")
    return broken(
        f"kernel {kernel} runs, and the module is there for {', '.join(sorted(driver.built_for))}",
        "sudo apt-get install -y linux-headers-$(uname -r)"
        "  # or: dnf install kernel-devel-$(uname -r)",
        "sudo dkms autoinstall && sudo modprobe nvidia",
    )


def _secure_boot(facts: Facts) -> Result:
    driver, host = facts.host.driver, facts.host
    if driver.version or not host.secure_boot:
        return not_applicable("the driver is loaded" if driver.version else "Secure Boot is off")
    if host.kernel not in driver.built_for or any(gpu.driver in _HELD for gpu in host.gpus):
        return ok("Secure Boot is not what keeps the module out")
    return broken(
        f"Secure Boot is on, and the module for kernel {host.kernel} is not loaded",
        'sudo modprobe nvidia  # "Key was rejected by service" confirms it',
        "sudo mokutil --import /var/lib/dkms/mok.pub  # then reboot and enrol the key",
    )


def _loaded(facts: Facts) -> Result:
    host = facts.host
    if host.is_wsl:
        return not_applicable("WSL has no module of NVIDIA's")
    if host.driver.version:
        return ok(f"kernel module {host.driver.version}")
    if "nvidia" in host.driver.modules:
        return unknown("the nvidia module is loaded, but /proc/driver/nvidia cannot be seen here")
    return broken(
        "there is no /proc/driver/nvidia/version: the nvidia module is not loaded",
        "sudo modprobe nvidia && sudo nvidia-modprobe -u -c0",
        "sudo dmesg | tail -n 50",
    )


def _library(facts: Facts) -> Result:
    driver = facts.host.driver
    if driver.library:
        return ok(driver.library)
    if not driver.version:
        return not_applicable("the driver is not loaded")
    branch = driver.version.partition(".")[0]
    return broken(
        f"module {driver.version} is loaded, but libnvidia-ml.so.1 is nowhere",
        f"sudo apt-get install -y libnvidia-compute-{branch}"
        "  # or: dnf install nvidia-driver-cuda-libs",
        "# installed elsewhere: give gpudetour's agent --driver-root",
    )


def _versions(facts: Facts) -> Result:
    driver = facts.host.driver
    if not driver.version or not driver.library_versions:
        return not_applicable("module or library has no version to compare")
    if driver.version in driver.library_versions:
        return ok(f"module and library are {driver.version}")
    library = ", ".join(sorted(driver.library_versions))
    return broken(
        f"module {driver.version} is loaded, and the library is {library}: the driver was updated"
        " without a reboot",
        f"kubectl drain {remedies.node_of(facts)} --ignore-daemonsets --delete-emptydir-data",
        "sudo reboot",
    )


def _nodes(facts: Facts) -> Result:
    driver = facts.host.driver
    if facts.host.is_wsl or not driver.version:
        return not_applicable("the driver is not loaded")
    wanted = ["nvidiactl", *(f"nvidia{minor}" for minor in driver.minors.values() if minor >= 0)]
    missing = [name for name in wanted if name not in driver.nodes]
    if missing:
        return broken(
            f"{', '.join(f'/dev/{name}' for name in missing)} is missing",
            "sudo nvidia-modprobe -c0 && sudo nvidia-smi -L",
            "sudo systemctl enable --now nvidia-persistenced",
        )
    odd = [name for name in wanted if driver.nodes[name].major < 0]
    if odd:
        return broken(
            f"/dev/{odd[0]} is no character device: something created a file in its place",
            f"sudo rm /dev/{odd[0]} && sudo nvidia-modprobe -c0",
        )
    return ok(", ".join(f"/dev/{name}" for name in wanted[:9]))


def _uvm(facts: Facts) -> Result:
    driver = facts.host.driver
    if facts.host.is_wsl or not driver.version:
        return not_applicable("the driver is not loaded")
    if "nvidia-uvm" in driver.nodes:
        return ok("/dev/nvidia-uvm is there")
    return broken(
        "/dev/nvidia-uvm is missing, which CUDA needs and nvidia-smi does not",
        "sudo modprobe nvidia-uvm && sudo nvidia-modprobe -u -c0",
        "echo nvidia-uvm | sudo tee /etc/modules-load.d/nvidia-uvm.conf",
    )


def _numbers(facts: Facts) -> Result:
    driver = facts.host.driver
    node, major = driver.nodes.get("nvidia-uvm"), driver.majors.get("nvidia-uvm")
    if node is None or node.major < 0 or major is None:
        return not_applicable("no /dev/nvidia-uvm to compare with /proc/devices")
    if node.major == major:
        return ok(f"/dev/nvidia-uvm has major number {major}")
    return broken(
        f"/dev/nvidia-uvm has major number {node.major}, and the kernel's is {major} now",
        "sudo rm /dev/nvidia-uvm /dev/nvidia-uvm-tools && sudo nvidia-modprobe -u -c0",
        *remedies.refresh_cdi(),
    )


def _fabric(facts: Facts) -> Result:
    host = facts.host
    if not host.nvswitches:
        return not_applicable("no NVSwitch")
    if host.has_fabric_manager:
        return ok(f"{host.nvswitches} NVSwitches, and nv-fabricmanager runs")
    branch = host.driver.version.partition(".")[0] or "580"
    return broken(
        f"{host.nvswitches} NVSwitches, and nv-fabricmanager does not run",
        f"sudo apt-get install -y nvidia-fabricmanager-{branch}",
        "sudo systemctl enable --now nvidia-fabricmanager",
    )


def _nvml(facts: Facts) -> Result:
    nvml = facts.host.nvml
    if nvml is None:
        return not_applicable("NVML was not asked")
    if nvml.code == 0 and nvml.gpus:
        return ok(f"NVML lists {nvml.gpus} GPUs")
    if nvml.code == 0:
        return broken("NVML works and lists no GPU", "sudo dmesg | grep NVRM", "nvidia-smi -L")
    if nvml.code == 4:
        return unknown("NVML may not be asked by this user", "sudo gpudetour doctor")
    mend = _NVML.get(nvml.code, ("nvidia-smi", "sudo dmesg | grep NVRM"))
    return broken(f"NVML: {nvml.text[:200]} (code {nvml.code})", *mend)


_NVML = {
    9: ("sudo modprobe nvidia", "sudo dmesg | grep NVRM"),
    NVML_TIMED_OUT: ("sudo dmesg | grep -E 'NVRM|Xid'", "sudo reboot"),
    12: ("sudo ldconfig -p | grep libnvidia-ml",),
    15: ("sudo dmesg | grep Xid", "sudo reboot"),
    16: ("sudo nvidia-smi --gpu-reset",),
    17: ("sudo dmesg | grep -iE 'lockdown|denied'",),
    18: ("sudo reboot  # the driver was updated under a loaded module",),
    999: ("sudo systemctl restart nvidia-persistenced", "sudo dmesg | grep NVRM"),
}


def _legacy_links(facts: Facts) -> Result:
    toolkit, runtime = facts.host.toolkit, facts.host.runtime
    legacy = toolkit.setting("nvidia-container-runtime", "mode") == "legacy"
    if not legacy or not facts.host.driver.nodes:
        return not_applicable("the toolkit is not in legacy mode")
    if facts.host.driver.char_links:
        return ok("/dev/char has links to NVIDIA's devices")
    systemd = any(handler.systemd_cgroup for handler in runtime.handlers.values())
    if not systemd:
        return ok("systemd does not manage the containers' devices")
    return warning(
        "legacy mode, systemd cgroups, and no links in /dev/char: running containers lose their"
        ' GPU at the next "systemctl daemon-reload"',
        "sudo nvidia-ctk system create-dev-char-symlinks --create-all",
        "sudo nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto",
    )


_NO_DRIVER = ("driver-installed", "driver-loaded")

CHECKS = (
    Check(
        id="driver-installed",
        title="NVIDIA's driver is installed",
        why="everything else stands on it",
        look=_installed,
        needs=HOST_GPU,
    ),
    Check(
        id="driver-kernel",
        title="The module was built for the running kernel",
        why="after a kernel update without headers DKMS builds nothing, and the GPU is gone",
        look=_for_kernel,
        needs=HOST_GPU,
    ),
    Check(
        id="driver-secure-boot",
        title="Secure Boot lets the module in",
        why="a kernel under Secure Boot refuses modules that are signed by nobody it knows",
        look=_secure_boot,
        needs=HOST_GPU,
    ),
    Check(
        id="driver-loaded",
        title="The kernel module is loaded",
        why='NVML says "driver not loaded" (9), and no device node exists',
        look=_loaded,
        needs=HOST_GPU,
        causes=(
            "gpu-nouveau",
            "gpu-vfio",
            "gpu-on-bus",
            "driver-installed",
            "driver-kernel",
            "driver-secure-boot",
        ),
    ),
    Check(
        id="driver-library",
        title="libnvidia-ml.so.1 is installed",
        why="plugins, agents and nvidia-smi speak to the driver through it",
        look=_library,
        needs=HOST_GPU,
        causes=("driver-installed",),
    ),
    Check(
        id="driver-library-version",
        title="Library and loaded module are of one version",
        why='NVML refuses to work otherwise: "Driver/library version mismatch" (18)',
        look=_versions,
        needs=HOST_GPU,
    ),
    Check(
        id="device-nodes",
        title="/dev/nvidiactl and /dev/nvidia<N> exist",
        why="containers get these files; without them CUDA finds no device",
        look=_nodes,
        needs=HOST_GPU,
        causes=(*_NO_DRIVER, "gpu-initialised"),
    ),
    Check(
        id="device-uvm",
        title="/dev/nvidia-uvm exists",
        why="nvidia-smi works without it, CUDA does not; it is made at first use, and containers"
        " cannot make it",
        look=_uvm,
        needs=HOST_GPU,
        causes=_NO_DRIVER,
    ),
    Check(
        id="device-numbers",
        title="/dev/nvidia-uvm has the number that the kernel gave it",
        why="the number changes when the module is loaded anew, and a stale file leads nowhere",
        look=_numbers,
        needs=HOST_GPU,
    ),
    Check(
        id="fabric-manager",
        title="nv-fabricmanager runs where there are NVSwitches",
        why="without it CUDA does not start on any GPU of the board (error 802)",
        look=_fabric,
        needs=HOST_GPU,
        causes=_NO_DRIVER,
    ),
    Check(
        id="nvml",
        title="NVML works and lists the GPUs",
        why="it is what plugins and gpudetour's agent count GPUs with",
        look=_nvml,
        needs=HOST_GPU,
        causes=(
            *_NO_DRIVER,
            "gpu-on-bus",
            "gpu-bound",
            "gpu-initialised",
            "gpu-xid",
            "driver-open-module",
            "driver-branch",
            "driver-library-version",
            "device-nodes",
            "fabric-manager",
        ),
    ),
    Check(
        id="device-char-links",
        title="Containers keep their GPU when systemd reloads",
        why="in legacy mode devices are added behind systemd's back, which it takes away again",
        look=_legacy_links,
        needs=HOST_GPU,
    ),
)

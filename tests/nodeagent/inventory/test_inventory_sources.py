"""The weaker sources, and which one is used when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.annotations import decode_inventory, encode_inventory
from gpus.model import Gpu, Health, NodeInventory, Source
from localcluster.nvml.machine import Machine
from localcluster.nvml.nodefiles import bind
from nodeagent.inventory.keeper import Rules
from nodeagent.inventory.pci import PciBus
from nodeagent.inventory.proc import ProcSource
from nodeagent.inventory.smi import SmiSource
from nodeagent.inventory.smi_log import read_log
from nodeagent.inventory.source import InventoryError
from nodeagent.inventory.standing import HoldDown
from nodeagent.inventory.xids import HealthPolicy
from tests.nodeagent.inventory.conftest import AT_ONCE, Reader
from tests.nodeagent.inventory.smi_program import SmiProgram, gpu_element

MachineOf = Callable[[str], Machine]
SourceOf = Callable[..., Reader]

HEALTHY, FAULTY, LOST = Health.HEALTHY, Health.FAULTY, Health.LOST
UNMONITORED = Health.UNMONITORED
UUID = "GPU-11111111-2222-3333-4444-555555555555"


def told(inventory: NodeInventory) -> NodeInventory:
    assert decode_inventory(encode_inventory(inventory)) == inventory
    return inventory


def health(inventory: NodeInventory) -> list[Health]:
    return [gpu.health for gpu in told(inventory).gpus]


def smi(machine: Machine, policy: HealthPolicy | None = None, deadline: float = 10) -> SmiSource:
    policy = policy or HealthPolicy()
    return SmiSource(machine.driver_root, policy=policy, deadline=deadline)


def test_nvidia_smi_is_asked_where_the_library_does_not_start_and_only_there(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    program = SmiProgram(machine)
    elements = [gpu_element(uuid, f"00000000:{n}1:00.0") for n, uuid in enumerate(machine.uuids)]
    program.log(*elements)
    program.capabilities(dict.fromkeys(machine.uuids, "8.9"))
    machine.fail_init(18)
    source = source_of(machine)
    inventory = told(source.read())
    assert inventory.source is Source.NVIDIA_SMI
    assert "reboot the node" in inventory.trouble
    assert (inventory.driver, inventory.cuda) == ("580.95.05", "13.0")
    assert inventory.gpus[0] == Gpu(
        uuid=inventory.gpus[0].uuid,
        index=0,
        minor=3,
        bdf="0000:01:00.0",
        product="NVIDIA GeForce RTX 4090",
        memory_bytes=24564 << 20,
        compute_capability=(8, 9),
        display=False,
        pci_class=inventory.gpus[0].pci_class,
    )
    machine.fail_init(None)
    runs = len(program.asked())
    inventory = source.read()
    assert (inventory.source, inventory.trouble) == (Source.NVML, "")
    assert len(program.asked()) == runs


def test_what_nvml_told_of_a_gpu_is_kept_while_nvidia_smi_tells_less(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("a100-mig")
    program = SmiProgram(machine)
    source = source_of(machine)
    before = source.read()
    program.log(*(gpu_element(uuid) for uuid in machine.uuids))
    machine.fail_init(999)
    machine.fail("nvmlDeviceGetCount_v2", 999)
    assert source.read().gpus == before.gpus
    assert source.read().source is Source.NVIDIA_SMI


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"gpu_recovery_action": "Reset"}, "the driver asks to reset"),
        ({"remapped_rows__remapped_row_failure": "Yes"}, "row remapping failed"),
        ({"ecc_errors__volatile__dram_uncorrectable": "2"}, "uncorrected ECC errors"),
        ({"ecc_errors__volatile__sram_uncorrectable_parity": "1"}, "uncorrected ECC errors"),
        ({"ecc_errors__volatile__double_bit__total": "1"}, "uncorrected ECC errors"),
        ({"temperature__gpu_temp": "95 C"}, "90 °C or hotter"),
        ({"gpu_recovery_action": "None"}, ""),
        ({"ecc_errors__volatile__dram_correctable": "7"}, ""),
        ({"ecc_errors__aggregate__dram_uncorrectable": "7"}, ""),
        ({"remapped_rows": "N/A"}, ""),
        ({"temperature__gpu_temp": "N/A"}, ""),
    ],
)
def test_health_by_nvidia_smi(texts: dict[str, str], reason: str) -> None:
    log = f"<nvidia_smi_log>{gpu_element(UUID, **texts)}</nvidia_smi_log>"
    (sighting,) = read_log(log, {}, HealthPolicy(max_temperature=90)).sightings
    assert sighting.gpu.health is (FAULTY if reason else HEALTHY)
    assert sighting.gpu.health_reason.startswith(reason)


def test_what_nvidia_smi_cannot_tell_is_absent_and_what_it_cannot_name_is_withheld() -> None:
    absent = gpu_element(
        UUID,
        product_name="N/A",
        minor_number="N/A",
        display_active="N/A",
        fb_memory_usage__total="[GPU is lost]",
        mig_mode__current_mig="Enabled",
    )
    lost = gpu_element("[GPU is lost]", "00000000:02:00.0")
    twice = gpu_element(UUID, "00000000:03:00.0")
    log = (
        f"<nvidia_smi_log><driver_version>?</driver_version>{absent}{lost}{twice}</nvidia_smi_log>"
    )
    survey = read_log(log, {}, HealthPolicy())
    assert survey.driver is None
    (sighting,) = survey.sightings
    gpu = sighting.gpu
    assert (gpu.product, gpu.minor, gpu.memory_bytes, gpu.display) == (None, None, None, None)
    assert (gpu.mig_capable, gpu.mig_enabled) == (True, True)
    assert [(each.bdf, each.reason) for each in survey.withheld] == [
        ("0000:02:00.0", "nvidia-smi cannot tell its UUID"),
        ("0000:03:00.0", "another GPU has the same UUID"),
    ]


@given(st.text() | st.text(alphabet="<>&;/gpu uid=\"'!DOCTYPE[]", max_size=200))
def test_any_text_is_a_log_or_a_clear_error(text: str) -> None:
    try:
        survey = read_log(text, {}, HealthPolicy())
    except InventoryError as error:
        assert "nvidia-smi printed no log" in str(error)  # noqa: PT017 (the other way is fine too)
    else:
        assert survey.source is Source.NVIDIA_SMI


def test_a_log_that_grows_without_end_is_refused() -> None:
    entities = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol" * 1000}">' for n in range(10)
    )
    text = f"<!DOCTYPE x [{entities}]><nvidia_smi_log>&e9;</nvidia_smi_log>"
    with pytest.raises(InventoryError, match="printed no log"):
        read_log(text, {}, HealthPolicy())


def test_nvidia_smi_that_fails_is_quoted(machine_of: MachineOf) -> None:
    machine = machine_of("rtx-5060-ti")
    with pytest.raises(InventoryError, match="no nvidia-smi below"):
        smi(machine).survey()
    program = SmiProgram(machine)
    program.fail("NVIDIA-SMI has failed because it\ncouldn't communicate with the NVIDIA driver.")
    with pytest.raises(
        InventoryError, match="failed with 9: NVIDIA-SMI has failed because it coul"
    ):
        smi(machine).survey()
    program.answer()
    program.log(gpu_element(UUID))
    (program.folder / "nvidia-smi").chmod(0o644)
    with pytest.raises(InventoryError, match="cannot be run: Permission denied"):
        smi(machine).survey()


def test_nvidia_smi_that_hangs_is_left_alone_and_not_started_again(
    machine_of: MachineOf,
) -> None:
    machine = machine_of("rtx-5060-ti")
    program = SmiProgram(machine)
    program.hang()
    now = [0.0]
    source = SmiSource(
        machine.driver_root, policy=HealthPolicy(), deadline=0.3, clock=lambda: now[0]
    )
    with pytest.raises(InventoryError, match="does not answer"):
        source.survey()
    program.answer()
    program.log(gpu_element(UUID))
    # What it said holds for a while: a program is no cheap call.
    with pytest.raises(InventoryError, match="does not answer"):
        source.survey()
    assert len(program.asked()) == 1
    while len(program.asked()) == 1:
        now[0] += 10
        try:
            survey = source.survey()
        except InventoryError:
            continue  # the killed one is not gone yet
        assert [sighting.gpu.uuid for sighting in survey.sightings] == [UUID]
    assert program.asked()[0] == "-q -x"


def test_without_library_and_program_the_kernel_module_names_gpus_that_nobody_monitors(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    machine.library.unlink()
    inventory = told(source_of(machine).read())
    assert (inventory.source, inventory.driver) == (Source.PROC, "570.124.06")
    assert inventory.cuda is None
    assert [gpu.uuid for gpu in inventory.gpus] == list(machine.uuids)
    first = inventory.gpus[0]
    assert (first.product, first.minor) == ("NVIDIA GeForce RTX 4090", 0)
    assert (first.memory_bytes, first.compute_capability, first.architecture) == (None, None, None)
    assert first.health is UNMONITORED
    assert first.health_reason.startswith("no libnvidia-ml.so.1 below")
    assert inventory.trouble.startswith("no libnvidia-ml.so.1 below")


def test_a_library_that_cannot_even_be_looked_at_is_tried_again(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine)
    before = source.read()
    right = machine.library.readlink()
    machine.library.unlink()
    machine.library.symlink_to("x" * 300)  # longer than any name may be
    inventory = told(source.read())
    assert (inventory.source, health(inventory)) == (Source.PROC, [UNMONITORED] * 2)
    assert inventory.trouble.startswith("a file cannot be read (File name too long): ")
    machine.library.unlink()
    machine.library.symlink_to(right)
    assert source.read() == before


def test_a_driver_that_goes_and_comes_back_costs_no_waiting(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine, Rules(hold_down=HoldDown(base=60)))
    before = source.read()
    hidden = machine.library.with_name("hidden")
    machine.library.rename(hidden)
    modules = machine.driver_root / "proc/driver/nvidia"
    modules.rename(modules.with_name("unloaded"))
    for gpu in machine.gpus:
        bind(machine.driver_root, gpu, None)
    inventory = told(source.read())
    assert inventory.source is Source.SYSFS
    assert health(inventory) == [UNMONITORED] * 2
    assert [gpu.product for gpu in inventory.gpus] == [gpu.product for gpu in before.gpus]
    assert inventory.withheld == ()
    modules.with_name("unloaded").rename(modules)
    hidden.rename(machine.library)
    assert source.read() == before


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        ("nouveau", "bound to nouveau"),
        ("vfio-pci", "virtual machine"),
        (None, "no kernel driver"),
        ("nvidia", "does not list it"),
        ("odd", "the kernel driver odd"),
    ],
)
def test_a_card_that_the_driver_does_not_list_is_told_with_its_reason(
    machine_of: MachineOf, source_of: SourceOf, driver: str | None, reason: str
) -> None:
    machine = machine_of("2x-rtx-4090")
    first, second = machine.gpus
    machine.remove_gpu(first.uuid)
    devices = machine.driver_root / "sys/bus/pci/devices"
    other = devices / second.bdf
    taken = devices / first.bdf
    taken.mkdir()
    for name in ("vendor", "class"):
        (taken / name).write_text((other / name).read_text())
    bind(machine.driver_root, first, driver)
    sound = devices / "0000:01:00.1"
    sound.mkdir()
    (sound / "vendor").write_text("0x10de\n")
    (sound / "class").write_text("0x040300\n")
    inventory = told(source_of(machine).read())
    assert [gpu.uuid for gpu in inventory.gpus] == [second.uuid]
    (withheld,) = inventory.withheld
    assert withheld.bdf == first.bdf
    assert reason in withheld.reason


def test_a_node_without_any_gpu_says_what_is_wrong_with_the_best_source(
    tmp_path: Path, machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("rtx-5060-ti")
    machine.remove_gpu(machine.uuids[0])
    machine.library.unlink()
    source = source_of(machine)
    inventory = source.read()
    assert (inventory.gpus, inventory.withheld) == ((), ())
    assert "no libnvidia-ml.so.1" in inventory.trouble
    with pytest.raises(InventoryError, match="mount the host's /sys"):
        PciBus(tmp_path / "none").survey()
    with pytest.raises(InventoryError, match="modprobe nvidia"):
        ProcSource(tmp_path / "none").survey()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("GPU UUID: GPU-????????-????-????-????-????????????\n", "has not read its UUID"),
        ("", "has not read its UUID"),
        (f"GPU UUID: {UUID}\nGPU Excluded: Yes\n", "excluded by NVIDIA's kernel module"),
        ("\x00\xff" * 100_000, "has not read its UUID"),
    ],
)
def test_what_the_kernel_module_cannot_name_is_withheld(
    machine_of: MachineOf, text: str, reason: str
) -> None:
    machine = machine_of("rtx-5060-ti")
    (gpu,) = machine.gpus
    information = machine.driver_root / "proc/driver/nvidia/gpus" / gpu.bdf / "information"
    information.write_text(text)
    survey = ProcSource(machine.driver_root).survey()
    assert survey.sightings == ()
    (withheld,) = survey.withheld
    assert (withheld.bdf, reason in withheld.reason) == (gpu.bdf, True)


def test_all_sources_failing_leaves_what_was_known(
    machine_of: MachineOf, source_of: SourceOf
) -> None:
    machine = machine_of("2x-rtx-4090")
    source = source_of(machine, AT_ONCE)
    source.read()
    for name in ("usr", "proc", "sys"):
        (machine.driver_root / name).rename(machine.driver_root / f"hidden-{name}")
    inventory = told(source.read())
    assert (inventory.source, health(inventory)) == (Source.NVML, [UNMONITORED] * 2)
    source.restart()
    with pytest.raises(InventoryError, match="no libnvidia-ml"):
        source.read()
    for name in ("usr", "proc", "sys"):
        (machine.driver_root / f"hidden-{name}").rename(machine.driver_root / name)
    assert health(source.read()) == [HEALTHY] * 2

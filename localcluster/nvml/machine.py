"""An installed machine, and all that can happen to it while programs have its library loaded.

Each change is written to the control file in one step, which the library notices at its next call
(a waiting nvmlEventSetWait_v2 at once). Changes of several processes are serialised by a lock file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from localcluster.files import write_atomically
from localcluster.nvml.description import (
    Changes,
    Description,
    Event,
    Fault,
    Mig,
    Process,
    SimulatedGpu,
    control_text,
    mig_devices,
    new_gpu,
)
from localcluster.nvml.nodefiles import place_gpu, remove_gpu
from localcluster.nvml.profiles import Fact, ProfileGpu, known_facts, load_model
from localcluster.parts.locks import exclusive

LIBRARY_FOLDER = "usr/lib/x86_64-linux-gnu"
CONF = "gpudetour-nvml.conf"
_CONTROL = "gpudetour-nvml.control"
_STATE = "gpudetour-nvml.json"

XID_EVENT = 0x8
#: "GPU has fallen off the bus" in NVIDIA's Xid catalog.
_XID_OFF_BUS = 79
_KEPT_EVENTS = 64
#: MAX_GPUS of machine.h.
_MOST_GPUS = 32


class UnknownGpuError(ValueError):
    """The machine has no such GPU; the text lists those it has."""


class _State(msgspec.Struct):
    description: Description
    changes: Changes
    next_sequence: int = 1


class Machine:
    """The machine below one driver root; its methods are what may happen to it.

    Invariant: the control file says what the state file beside it says.
    """

    def __init__(self, driver_root: Path) -> None:
        self.driver_root = driver_root
        self._folder = driver_root / LIBRARY_FOLDER
        if not (self._folder / _STATE).exists():
            raise FileNotFoundError(
                f"no simulated machine below {driver_root}; place one with"
                f" `python -m localcluster.nvml {driver_root} install PROFILE`"
            )

    @classmethod
    def create(cls, driver_root: Path, description: Description) -> Machine:
        """Begin the life of a machine; only `install` calls this.

        Events of an earlier machine stay numbered, so that event sets that outlive it miss none.
        """
        folder = driver_root / LIBRARY_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / _STATE
        if not state.exists():
            write_atomically(state, msgspec.json.encode(_State(description, Changes())))
        machine = cls(driver_root)
        with machine._changing() as present:
            present.description = description
            present.changes = Changes()
        return machine

    @property
    def library(self) -> Path:
        """What production loads."""
        return self._folder / "libnvidia-ml.so.1"

    @property
    def gpus(self) -> tuple[SimulatedGpu, ...]:
        """All GPUs in slot order, whatever happened to them."""
        return _gpus(self._read())

    @property
    def uuids(self) -> tuple[str, ...]:
        """The UUIDs of `gpus`."""
        return tuple(gpu.uuid for gpu in self.gpus)

    @property
    def mig_uuids(self) -> tuple[str, ...]:
        """The UUIDs of all MIG devices."""
        state = self._read()
        return tuple(m.uuid for gpu in _gpus(state) for m in _mig(state, gpu))

    def presence(self, uuid: str) -> str:
        """`present`, `lost` or `off-bus`."""
        state = self._read()
        return state.changes.presence.get(_find(state, uuid).slot, "present")

    def lose(self, uuid: str) -> None:
        """Every call about the GPU answers GPU_IS_LOST; it stays in the count."""
        self._change(uuid, lambda changes, gpu: changes.presence.update({gpu.slot: "lost"}))

    def fall_off_bus(self, uuid: str) -> None:
        """As `lose`, with Xid 79, and after the next nvmlInit the GPU is not counted."""
        self._change(uuid, lambda changes, gpu: changes.presence.update({gpu.slot: "off-bus"}))
        self.xid(uuid, _XID_OFF_BUS)

    def restore(self, uuid: str) -> None:
        """Undo all that happened to the GPU; one that is not enumerated needs nvmlInit."""

        def undo(changes: Changes, gpu: SimulatedGpu) -> None:
            for table in (changes.presence, changes.facts, changes.mig, changes.processes):
                table.pop(gpu.slot, None)
            changes.faults = [f for f in changes.faults if f.slot != gpu.slot]
            place_gpu(self.driver_root, gpu)

        self._change(uuid, undo)

    def remove_gpu(self, uuid: str) -> None:
        """Take the GPU out: lost for those who know it, not counted from the next nvmlInit on."""

        def remove(changes: Changes, gpu: SimulatedGpu) -> None:
            changes.presence[gpu.slot] = "off-bus"
            remove_gpu(self.driver_root, gpu)

        self._change(uuid, remove)

    def add_gpu(self, model: str) -> str:
        """Put a GPU into the next slot and return its UUID; the next nvmlInit counts it."""
        with self._changing() as state:
            slot = len(_gpus(state))
            if slot == _MOST_GPUS:
                raise ValueError(f"a machine holds at most {_MOST_GPUS} GPUs")
            description = state.description
            gpu = new_gpu(
                ProfileGpu(model=model, bdf=f"0000:{0xE0 + slot:02x}:00.0"),
                slot=slot,
                seed=f"{description.node}/{description.profile}/{slot}",
            )
            state.changes.added.append(gpu)
            place_gpu(self.driver_root, gpu)
        return gpu.uuid

    def xid(self, uuid: str, code: int) -> None:
        """Report an Xid of the GPU, once to each event set that registered for it."""
        self.event(uuid, XID_EVENT, code)

    def event(self, uuid: str, event_type: int, data: int) -> None:
        """Report an event; `event_type` is one bit of nvmlEventType."""
        with self._changing() as state:
            slot = _find(state, uuid).slot
            event = Event(state.next_sequence, slot, event_type, data)
            state.changes.events = [*state.changes.events, event][-_KEPT_EVENTS:]
            state.next_sequence += 1

    def ecc(self, uuid: str, *, volatile: int, aggregate: int | None = None) -> None:
        """Set the counters of uncorrected ECC errors (since the driver was loaded, and ever)."""
        ever = volatile if aggregate is None else aggregate
        self.facts(uuid, ecc_uncorrected_volatile=volatile, ecc_uncorrected_aggregate=ever)

    def facts(self, uuid: str, /, **facts: Fact) -> None:
        """Set facts by their names in machine.h, such as `temperature`; "none" makes one absent.

        Raises `ValueError` for a name that the library does not know.
        """
        if unknown := set(facts) - known_facts():
            raise ValueError(
                f"no such fact: {', '.join(sorted(unknown))};"
                f" there are {', '.join(sorted(known_facts()))}"
            )
        self._change(
            uuid,
            lambda changes, gpu: changes.facts.setdefault(gpu.slot, {}).update(facts),
        )

    def processes(self, uuid: str, processes: Sequence[Process]) -> None:
        """Set which processes run on the GPU."""
        self._change(
            uuid, lambda changes, gpu: changes.processes.update({gpu.slot: list(processes)})
        )

    def split(self, uuid: str, profiles: Sequence[str]) -> None:
        """Split the GPU into MIG devices of these profiles; none at all switches MIG off."""

        def change(changes: Changes, gpu: SimulatedGpu) -> None:
            seed = f"{gpu.uuid}/split"
            changes.mig[gpu.slot] = mig_devices(load_model(gpu.model), list(profiles), seed=seed)
            changes.facts.setdefault(gpu.slot, {})["mig_mode"] = int(bool(profiles))

        self._change(uuid, change)

    def reorder(self, uuids: Sequence[str]) -> None:
        """Give the GPUs these indices from the next nvmlInit on."""
        for index, uuid in enumerate(uuids):
            self.facts(uuid, order=index)

    def fail_init(self, code: int | None) -> None:
        """Let nvmlInit fail with an nvmlReturn_t; None ends it."""
        with self._changing() as state:
            state.changes.init_fault = -1 if code is None else code

    def fail(self, function: str, code: int, *, uuid: str | None = None) -> None:
        """Let a function ("*": every one) fail, for one GPU or whatever it is called for."""
        with self._changing() as state:
            slot = -1 if uuid is None else _find(state, uuid).slot
            state.changes.faults.append(Fault(function, slot, code))

    def report_count(self, count: int | None) -> None:
        """Let nvmlDeviceGetCount lie; None ends it."""
        with self._changing() as state:
            state.changes.count = -1 if count is None else count

    def hang(self, function: str, *, uuid: str | None = None) -> None:
        """Let calls of a function ("*": every one) block until `release`, for one GPU or all."""
        with self._changing() as state:
            state.changes.hang = function
            state.changes.hang_slot = -1 if uuid is None else _find(state, uuid).slot

    def release(self) -> None:
        """End `hang`, `fail_init`, `fail` and `report_count`."""
        with self._changing() as state:
            changes = state.changes
            changes.hang, changes.hang_slot = "", -1
            changes.init_fault = changes.count = -1
            changes.faults = []

    def _change(self, uuid: str, change: Callable[[Changes, SimulatedGpu], object]) -> None:
        with self._changing() as state:
            change(state.changes, _find(state, uuid))

    def _read(self) -> _State:
        return msgspec.json.decode((self._folder / _STATE).read_bytes(), type=_State)

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        with exclusive(self._folder / "gpudetour-nvml.lock", waiting=lambda: None):
            state = self._read()
            yield state
            write_atomically(self._folder / _STATE, msgspec.json.encode(state))
            write_atomically(self._folder / _CONTROL, control_text(state.changes))


def _gpus(state: _State) -> tuple[SimulatedGpu, ...]:
    return (*state.description.gpus, *state.changes.added)


def _mig(state: _State, gpu: SimulatedGpu) -> list[Mig]:
    return state.changes.mig.get(gpu.slot, gpu.mig)


def _find(state: _State, uuid: str) -> SimulatedGpu:
    for gpu in _gpus(state):
        if gpu.uuid == uuid:
            return gpu
    known = ", ".join(gpu.uuid for gpu in _gpus(state)) or "none"
    raise UnknownGpuError(f"no GPU {uuid!r} in this machine; it has {known}")

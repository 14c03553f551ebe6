"""`python -m localcluster.nvml ROOT …`: play with a simulated machine from a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from localcluster.nvml.profiles import UnknownProfileError, profile_names
from localcluster.toolchain import ToolchainError


@click.group()
@click.argument("driver_root", type=click.Path(file_okay=False, path_type=Path))
@click.pass_context
def main(context: click.Context, driver_root: Path) -> None:
    """Change the simulated machine below DRIVER_ROOT while programs use it."""
    context.obj = driver_root


@main.command("install")
@click.argument("profile")
@click.option("--node", default="node1", show_default=True, help="UUIDs are derived from it.")
@click.pass_obj
def install_(driver_root: Path, profile: str, node: str) -> None:
    """Place a machine; without a known PROFILE the known ones are listed."""
    try:
        _show(install(driver_root, profile, node=node))
    except (UnknownProfileError, ToolchainError) as error:
        raise click.ClickException(str(error)) from error


@main.command("list")
@click.pass_obj
def list_(driver_root: Path) -> None:
    """Show the GPUs and their presence."""
    _show(_machine(driver_root))


def _gpu_command(name: str, help_text: str, act: Callable[[Machine, str], None]) -> None:
    @main.command(name, help=help_text)
    @click.argument("uuid")
    @click.pass_obj
    def command(driver_root: Path, uuid: str) -> None:
        _try(lambda: act(_machine(driver_root), uuid))


_gpu_command("lose", "Every call about the GPU answers GPU_IS_LOST.", Machine.lose)
_gpu_command("fall-off-bus", "Lost with Xid 79, and gone after re-init.", Machine.fall_off_bus)
_gpu_command("restore", "Undo all that happened to the GPU.", Machine.restore)
_gpu_command("remove", "Take the GPU out of the machine.", Machine.remove_gpu)


@main.command()
@click.argument("uuid")
@click.argument("code", type=int)
@click.pass_obj
def xid(driver_root: Path, uuid: str, code: int) -> None:
    """Report an Xid of a GPU."""
    _try(lambda: _machine(driver_root).xid(uuid, code))


@main.command()
@click.argument("uuid")
@click.argument("count", type=int)
@click.pass_obj
def ecc(driver_root: Path, uuid: str, count: int) -> None:
    """Set the number of uncorrected ECC errors."""
    _try(lambda: _machine(driver_root).ecc(uuid, volatile=count))


@main.command("set")
@click.argument("uuid")
@click.argument("fact")
@click.argument("value")
@click.pass_obj
def set_(driver_root: Path, uuid: str, fact: str, value: str) -> None:
    """Set a fact by its name in machine.h, such as temperature or memory_used."""
    _try(lambda: _machine(driver_root).facts(uuid, **{fact: value}))


@main.command()
@click.argument("uuid")
@click.argument("profiles", nargs=-1)
@click.pass_obj
def split(driver_root: Path, uuid: str, profiles: tuple[str, ...]) -> None:
    """Split a GPU into MIG devices of these profiles."""
    _try(lambda: _machine(driver_root).split(uuid, profiles))


@main.command()
@click.argument("model")
@click.pass_obj
def add(driver_root: Path, model: str) -> None:
    """Put a GPU of a model into the machine."""
    _try(lambda: click.echo(_machine(driver_root).add_gpu(model)))


@main.command("fail-init")
@click.argument("code", type=int)
@click.pass_obj
def fail_init(driver_root: Path, code: int) -> None:
    """Let nvmlInit fail with an nvmlReturn_t, such as 9 (driver not loaded)."""
    _machine(driver_root).fail_init(code)


@main.command()
@click.argument("function")
@click.option("--gpu", "uuid", help="For this GPU only, by its UUID.")
@click.pass_obj
def hang(driver_root: Path, function: str, uuid: str | None) -> None:
    """Let calls of an NVML function ("*": all) block until `release`."""
    _try(lambda: _machine(driver_root).hang(function, uuid=uuid))


@main.command()
@click.pass_obj
def release(driver_root: Path) -> None:
    """End hanging and failing calls."""
    _machine(driver_root).release()


def _machine(driver_root: Path) -> Machine:
    try:
        return Machine(driver_root)
    except FileNotFoundError as error:
        known = ", ".join(profile_names())
        raise click.ClickException(f"{error}\nprofiles: {known}") from error


def _try(act: Callable[[], object]) -> None:
    try:
        act()
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _show(machine: Machine) -> None:
    for gpu in machine.gpus:
        click.echo(f"{gpu.slot}  {gpu.uuid}  {gpu.facts['name']}  {machine.presence(gpu.uuid)}")


if __name__ == "__main__":
    main()

"""`gpudetour scheduler-config`: the configuration of kube-scheduler, and what to do with it.

The composition root of `scheduling`. It reads the cluster and writes nothing to it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from cli.options import Target, targeted
from scheduling import files
from scheduling.advice import Outcome, advice, heading
from scheduling.cluster import expiry, read_address, read_credentials, read_second
from scheduling.configuration import (
    Object,
    SetupError,
    merge,
    merge_second,
    url_of,
    with_data,
    with_files,
)
from scheduling.flavors import FILE, FLAVORS, Flavor


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for."""

    flavor: Flavor
    write: Path | None
    merge: Path | None
    folder: str
    kubeconfig: str
    address: str | None


@click.command(name="scheduler-config")
@targeted(namespaced=False)
@click.option(
    "--flavor", type=click.Choice(list(FLAVORS)), required=True, help="What runs kube-scheduler."
)
@click.option(
    "--write",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Write {FILE}, ca.crt, tls.crt and tls.key there, mode 0600, and print nothing.",
)
@click.option(
    "--merge",
    "merged",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Put the extender into this KubeSchedulerConfiguration, which keeps what it says.",
)
@click.option(
    "--folder",
    metavar="PATH",
    help="Where the files will lie on the servers, if not at the flavor's usual place.",
)
@click.option(
    "--scheduler-kubeconfig",
    metavar="PATH",
    help="The kubeconfig of kube-scheduler there, if not at the flavor's usual place.",
)
@click.option(
    "--address",
    metavar="IP[:PORT]",
    help="Where kube-scheduler reaches the extender.  [default: the address of its Service]",
)
def scheduler_config(target: Target, flavor: str, **chosen: Any) -> None:
    """Print the configuration that makes a cluster's kube-scheduler call the extender.

    Certificates come from the cluster and stand in it, or lie beside it with --write, where new
    ones can be put without a restart. What to do with it is told on standard error.
    """
    wanted = _wanted(FLAVORS[flavor], **chosen)
    try:
        outcome, printed = (_second if wanted.flavor.is_ours else _own)(target, wanted)
    except SetupError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    click.echo(printed, nl=False)
    for line in advice(outcome):
        click.echo(line, err=True)


def _wanted(
    flavor: Flavor,
    *,
    write: Path | None,
    merged: Path | None,
    folder: str | None,
    scheduler_kubeconfig: str | None,
    address: str | None,
) -> Wanted:
    return Wanted(
        flavor=flavor,
        write=write,
        merge=merged,
        folder=(folder or flavor.folder).rstrip("/"),
        kubeconfig=scheduler_kubeconfig or flavor.kubeconfig,
        address=address,
    )


def _own(target: Target, wanted: Wanted) -> tuple[Outcome, str]:
    """Return what was made for a cluster's own scheduler; files are written here."""
    if wanted.write is not None and not wanted.flavor.takes_files:
        raise SetupError(
            f"{wanted.flavor.title} has no place for files of others; leave --write out, the output"
            " holds the certificates"
        )
    # Said before the cluster is asked.
    url = url_of(wanted.address) if wanted.address else None
    existing = files.existing(wanted.merge) if wanted.merge else None
    client = target.client()
    url = url or url_of(read_address(client))
    credentials = read_credentials(client)
    expires = expiry(credentials)
    base, kubeconfig = files.shipped(), wanted.kubeconfig
    if wanted.write is None:
        ours = with_data(base, url=url, credentials=credentials, kubeconfig=kubeconfig)
    else:
        ours = with_files(base, url=url, folder=wanted.folder, kubeconfig=kubeconfig)
    found = merge(existing, ours) if wanted.merge else None
    outcome = Outcome(
        flavor=wanted.flavor,
        folder=wanted.folder,
        written=str(wanted.write.resolve()) if wanted.write else "",
        expires=expires,
        remarks=found.remarks if found else (),
    )
    text = _text(outcome, found.configuration if found else ours)
    if wanted.write is None:
        return outcome, text
    files.write(wanted.write, text, credentials)
    return outcome, ""


def _second(target: Target, wanted: Wanted) -> tuple[Outcome, str]:
    """Return the configuration of the scheduler beside the extender."""
    if wanted.write or wanted.address or wanted.folder or wanted.kubeconfig:
        raise SetupError(
            "--write, --address, --folder and --scheduler-kubeconfig are for a cluster's own"
            " scheduler; ours has all it needs in its pod"
        )
    existing = files.existing(wanted.merge) if wanted.merge else None
    configuration = read_second(target.client())
    remarks: tuple[str, ...] = ()
    if wanted.merge:
        found = merge_second(existing, configuration)
        configuration, remarks = found.configuration, found.remarks
    outcome = Outcome(flavor=wanted.flavor, folder="", remarks=remarks)
    return outcome, _text(outcome, configuration)


def _text(outcome: Outcome, configuration: Object) -> str:
    document: Any = configuration
    if outcome.flavor.name == "talos":
        # The machine configuration sets version and kind by itself.
        inner = {k: v for k, v in configuration.items() if k not in ("apiVersion", "kind")}
        document = {"cluster": {"scheduler": {"config": inner}}}
    dumped = yaml.safe_dump(document, sort_keys=False, width=100)
    return "".join(f"{line}\n" for line in heading(outcome)) + dumped

"""Which certificates there are, whom they name, and the Secrets that hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from certs.authority import Subject, Usage, normal_host

NAMESPACE = "gpudetour-system"
WEBHOOK_CONFIGURATION = "gpudetour"

#: The certificate with which kube-scheduler calls the extender.
SCHEDULER_CLIENT = "scheduler-client"
AUTHORITY_SECRET = "gpudetour-ca"  # noqa: S105 - the name of a Secret
#: The extender accepts only callers of this name.
SCHEDULER_COMMON_NAME = "gpudetour-scheduler"

CERTIFICATE = "tls.crt"
KEY = "tls.key"
#: Every authority to be trusted: the newest first, then former ones until they expire.
BUNDLE = "ca.crt"

#: In the authority's Secret only. While a new authority becomes known, the former one signs.
RETIRING_CERTIFICATE = "retiring.crt"
RETIRING_KEY = "retiring.key"
#: Since when the authority has been seen in every bundle without a break (RFC 3339).
TRUSTED_SINCE = "trusted-since"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One certificate that we keep issued; `name` is also its folder with `--write-to`."""

    name: str
    secret: str
    subject: Subject


def leaves(
    namespace: str, *, webhook_hosts: Iterable[str] = (), extender_hosts: Iterable[str] = ()
) -> tuple[Leaf, ...]:
    """Return all leaf certificates; the hosts are names or addresses beyond those of Services.

    Raises `CertificateError` for a host that a certificate cannot carry.
    """
    return (
        _server("webhook", namespace=namespace, hosts=webhook_hosts),
        _server("extender", namespace=namespace, hosts=extender_hosts),
        Leaf(
            name=SCHEDULER_CLIENT,
            secret="gpudetour-scheduler-client",  # noqa: S106 - the name of a Secret
            subject=Subject(common_name=SCHEDULER_COMMON_NAME, usage=Usage.CLIENT),
        ),
    )


def _server(name: str, *, namespace: str, hosts: Iterable[str]) -> Leaf:
    service = f"gpudetour-{name}"
    # The API server calls a webhook's Service by <name>.<namespace>.svc.
    inside = (service, f"{service}.{namespace}", f"{service}.{namespace}.svc")
    return Leaf(
        name=name,
        secret=f"{service}-tls",
        subject=Subject(
            common_name=service,
            usage=Usage.SERVER,
            hosts=frozenset(normal_host(host) for host in (*inside, *hosts)),
        ),
    )

"""The fence, as whoever reads the API sees it: the epoch on the extender's account."""

from __future__ import annotations

from gpus.annotations import EPOCH
from localcluster.api import ApiClient
from localcluster.stack import EXTENDER, NAMESPACE

ACCOUNT = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{EXTENDER}"


def epoch_in_force(api: ApiClient) -> int:
    """The epoch that the extender that leads has begun."""
    return int(api.get(ACCOUNT)["metadata"]["annotations"][EPOCH])

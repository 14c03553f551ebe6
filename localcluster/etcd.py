"""What a person does to etcd with etcdctl; by etcd's JSON gateway, so that no program is needed.

Everything else that concerns etcd's data goes through the API server.
"""

from __future__ import annotations

import base64
from pathlib import Path

from localcluster.api import ApiClient
from localcluster.pki import KeyPair


def compact(server: str, *, ca_file: Path, credentials: KeyPair) -> int:
    """Forget all revisions before the current one; returns that one.

    The API server then answers watches and lists that begin earlier with 410.
    """
    etcd = ApiClient(server, ca_file=ca_file, credentials=credentials)
    try:
        key = base64.b64encode(b"/").decode()
        revision = int(etcd.create("/v3/kv/range", {"key": key})["header"]["revision"])
        etcd.create("/v3/kv/compaction", {"revision": str(revision), "physical": True})
    finally:
        etcd.close()
    return revision

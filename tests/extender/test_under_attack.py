"""`python -m extender` among peers that hold connections open and bring nothing."""

from __future__ import annotations

import json
from pathlib import Path

from localcluster.bench.wire import Wire
from localcluster.waiting import until
from service.arrivals import HANDSHAKE_TIMEOUT, REQUEST_TIMEOUT
from tests.builders import pod
from tests.certs.making import Mounted, authority, client
from tests.extender.port import SCHEDULER, args
from tests.extender.served import SmallCluster, served
from tests.service import siege

#: Connections to the API server, which come and go.
OTHERS = 8
BODY = json.dumps(args("a", "b")).encode()


def ask(wire: Wire) -> None:
    status, answer = wire.ask("POST /filter", BODY)
    assert status == 200, answer
    assert json.loads(answer)["NodeNames"], answer


def test_every_filter_is_answered_among_1500_connections_that_bring_nothing(tmp_path: Path) -> None:
    ca = authority()
    # Of our authority, or they would not get as far as a request; but of another name.
    stranger = Mounted(tmp_path / "stranger")
    stranger.put(client(ca, name="stranger"), trusted=ca.certificate)
    with (
        SmallCluster(pod("p").wants(gpus=1)) as api,
        served(tmp_path / "extender", api=api, ca=ca, options=("--log-level=info",)) as extender,
    ):
        context = extender.context(client(ca, name=SCHEDULER))
        pid = siege.worker(extender.process)
        calm = siege.served(extender.port, context, ask, times=20)
        before = siege.open_files(pid)
        with siege.attack(
            extender.port,
            ca_file=stranger.ca_file,
            cert_file=stranger.cert_file,
            key_file=stranger.key_file,
        ) as attackers:
            took = siege.served(extender.port, context, ask, times=200)
            memory, files = siege.resident(pid), siege.open_files(pid)
            attackers.terminate()
            over = attackers.wait_for("all are closed", within=siege.CLOSING)

        assert siege.p99(took) < siege.bearable(calm)
        # On a busy machine they come to open less again than is closed.
        assert over["most"] > 750
        assert memory < 256 * siege.MEBI
        assert files < 2000
        assert over["seconds"] < HANDSHAKE_TIMEOUT + REQUEST_TIMEOUT + siege.SLACK
        until(
            lambda: siege.open_files(pid) <= before + OTHERS,
            timeout=siege.SLACK,
            what="their files closed",
        )

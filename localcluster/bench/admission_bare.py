"""A bare Flask view on the server that the webhook runs on: what admission costs without admitting.

`python -m localcluster.bench.admission_bare`, on one machine with what measures it.
"""

from __future__ import annotations

import click
from flask import Flask, Response

from service import logs
from service.http import ServerSettings, serve

_ANSWER = b'{"response":{"allowed":true}}'


def create_app() -> Flask:
    """Return an application that answers `POST /mutate` with a constant."""
    app = Flask("bare", static_folder=None)

    @app.post("/mutate")
    def mutate() -> Response:
        return Response(_ANSWER, content_type="application/json")

    return app


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--tls-dir", required=True)
def main(port: int, tls_dir: str) -> None:
    """Serve until SIGTERM; `--tls-dir` holds tls.crt and tls.key."""
    logs.configure(level="warning", json=True)
    settings = ServerSettings(
        host="127.0.0.1",
        port=port,
        cert_file=f"{tls_dir}/tls.crt",
        key_file=f"{tls_dir}/tls.key",
        drain=0.0,
    )
    serve(create_app(), settings, on_start=lambda: None, on_stop=lambda: None)


if __name__ == "__main__":
    main()

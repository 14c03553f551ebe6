"""What the docs tell to type is typed: against a real API server."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cli.__main__ import main
from localcluster.cluster import LocalCluster
from tests.docs.pages import ROOT, Block, Command, blocks, commands

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(300)]

#: They read a cluster, or nothing; and need no name of the reader's.
READING = ("nodes", "gpus", "pods", "version", "preflight", "node-setup")


def words_of(command: Command) -> tuple[str, ...] | None:
    """What gpudetour is given, by whatever name it is called; None where it is not."""
    if command.words[0] == "gpudetour":
        return command.words[1:]
    return command.words[2:] if command.words[:2] == ("kubectl", "gpudetour") else None


TYPED = sorted(
    {
        words
        for command in commands()
        if (words := words_of(command))
        and words[0] in READING
        # They go on for ever.
        and not {"-w", "--watch"} & set(words)
    }
)
FILES = sorted(
    {
        word
        for command in commands()
        if command.words[:2] in (("kubectl", "apply"), ("kubectl", "delete"))
        for word in command.words
        if word.startswith("manifests/") and word.endswith(".yaml")
    }
)


def is_object(block: Block) -> bool:
    """Tell whether a block is an object for the API server."""
    if block.language != "yaml":
        return False
    document = yaml.safe_load("\n".join(block.lines))
    return isinstance(document, dict) and {"apiVersion", "kind", "metadata"} <= document.keys()


OBJECTS = [block for block in blocks() if is_object(block)]


@pytest.mark.parametrize("words", TYPED, ids=" ".join)
def test_a_command_that_reads_is_run(control_plane: LocalCluster, words: tuple[str, ...]) -> None:
    before = [] if words[0] == "node-setup" else ["--kubeconfig", _kubeconfig(control_plane)]
    done = CliRunner().invoke(main, [*before, *words])

    # 1 is the verdict of preflight on a cluster without nodes of ours.
    assert done.exit_code in ((0, 1) if words[0] == "preflight" else (0,)), done.output
    assert done.output


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_applied_is_valid(control_plane: LocalCluster, file: str) -> None:
    text = (ROOT / file).read_text()
    documents = [each for each in yaml.safe_load_all(text) if each]
    # Kinds of others, such as cert-manager's, are known to a server only where they are installed.
    known = [each for each in documents if "cert-manager.io" not in each["apiVersion"]]
    items: dict[str, Any] = {"apiVersion": "v1", "kind": "List", "items": known}

    said = control_plane.kubectl(
        "apply", "--dry-run=client", "--validate=strict", "-f", "-", stdin=json.dumps(items)
    )

    assert said.count("(dry run)") == len(known)


@pytest.mark.parametrize("block", OBJECTS, ids=lambda block: f"{block.page}:{block.line}")
def test_an_object_in_the_docs_is_valid(control_plane: LocalCluster, block: Block) -> None:
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    control_plane.wait_for(account, bool)
    said = control_plane.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin="\n".join(block.lines)
    )

    assert "(server dry run)" in said


def test_there_is_something_to_run() -> None:
    assert ("preflight",) in TYPED
    assert "manifests/k3s.yaml" in FILES
    assert any(block.page == "docs/install/k3s.md" for block in OBJECTS)


def _kubeconfig(cluster: LocalCluster) -> str:
    return str(cluster.admin_kubeconfig)

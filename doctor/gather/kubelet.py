"""Kubelet's folder of device plugins."""

from __future__ import annotations

from dataclasses import replace

from doctor.facts.host import Kubelet
from doctor.gather.tree import Tree
from nodeagent.podresources.checkpoint import FILE_NAME, CheckpointError, read_checkpoint

_PLUGINS = "device-plugins"
_STANDARD = "/var/lib/kubelet"
_SOCKET = "kubelet.sock"


def read_kubelet(tree: Tree, folder: str) -> Kubelet:
    """Return what is in the plugin folder of kubelet's root, or of the standard one.

    The folder is a constant of kubelet's and does not follow `--root-dir`, but distributions move
    it by links or patches (kubernetes#120626).
    """
    candidates = dict.fromkeys((f"{folder}/{_PLUGINS}", f"{_STANDARD}/{_PLUGINS}"))
    path = next((each for each in candidates if tree.names(each) is not None), "")
    if not path:
        return Kubelet(folder=next(iter(candidates)))
    names = tree.names(path) or ()
    kubelet = Kubelet(
        folder=path,
        has_folder=True,
        has_socket=_SOCKET in names,
        sockets=tuple(name for name in names if name.endswith(".sock") and name != _SOCKET),
    )
    found = tree.find(path)
    if found is None or FILE_NAME not in names:
        return kubelet
    try:
        checkpoint = read_checkpoint(found)
    except CheckpointError as error:
        if "Permission denied" in str(error):
            tree.unreadable[f"{path}/{FILE_NAME}"] = "permission denied"
            return kubelet
        return replace(kubelet, checkpoint_fault=str(error))
    if checkpoint is None:
        return kubelet
    return replace(kubelet, registered=checkpoint.registered, held=checkpoint.held)

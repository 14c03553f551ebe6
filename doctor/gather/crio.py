"""CRI-O's effective configuration."""

from __future__ import annotations

import tomllib

from doctor.facts.runtime import Handler, Runtime
from doctor.gather.places import CRIO_CONFIG, CRIO_DROP_INS
from doctor.gather.tree import Tree
from doctor.shapes import mapping


def read_crio(tree: Tree, *, version: tuple[int, ...], search_path: tuple[str, ...]) -> Runtime:
    """Return the configuration as CRI-O would take it when it started now."""
    handlers: dict[str, Handler] = {}
    faults, default, changed_at = [], "", 0.0
    for path in (CRIO_CONFIG, *tree.matching(f"{CRIO_DROP_INS}/*.conf")):
        text = tree.text(path)
        if text is None:
            continue
        try:
            config = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            faults.append(f"{path}: {error}")
            continue
        changed_at = max(changed_at, tree.modified(path))
        runtime = mapping(mapping(config.get("crio")).get("runtime"))
        named = runtime.get("default_runtime")
        default = named if isinstance(named, str) else default
        for name, entry in mapping(runtime.get("runtimes")).items():
            binary = mapping(entry).get("runtime_path")
            binary = binary if isinstance(binary, str) else ""
            file = tree.program((binary,), search_path) if binary else ""
            handlers[name] = Handler(name=name, binary=binary, file=file)
    return Runtime(
        kind="cri-o",
        config_path=CRIO_CONFIG,
        config_exists=tree.exists(CRIO_CONFIG) or tree.exists(CRIO_DROP_INS),
        fault="; ".join(faults[:3]),
        handlers=handlers,
        default=default,
        enable_cdi=True,
        version=version,
        changed_at=changed_at,
    )

"""An explanation as text for people and as JSON for programs. Pure: values in, text out."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from explain.findings import Device, Explanation, Finding, State
from gpus.quantity import written

_WIDTH = 100
_LABEL = 8
#: Names of nodes and pods that people are shown of one group; programs get all.
_SHOWN = 6
#: How lines begin that are commands; they are never folded, for they are copied.
_COMMANDS = ("kubectl ", "gpudetour ", "sudo ", "printf ")
_PAGE = "docs/troubleshooting.md"


def verdict(told: Explanation) -> str:
    """Return the one line that says how things stand."""
    pod = f"pod {told.namespace}/{told.name}"
    first = told.findings[0] if told.findings else None
    match told.state:
        case State.PLACED if told.placement is not None:
            where = told.placement
            got = f"{len(where.devices)} device{'' if len(where.devices) == 1 else 's'}"
            if where.share_bytes:
                got = f"{written(where.share_bytes)} of one GPU"
            text = f"PLACED: {pod} is on node {where.node} with {got} (path {where.path})"
            return f"{text}, but {first.cause.title}" if first is not None else text
        case State.ENDED:
            return f"ENDED: {pod}: {first.cause.title if first is not None else 'it has ended'}"
        case State.REFUSED:
            return f"NOT CREATED: {pod}: {_title(first)}"
    return f"WAITS: {pod}: {_title(first)}"


def as_text(told: Explanation) -> str:
    """Return the answer for people: verdict, each cause with what ends it, what was not read."""
    return "".join(f"{printable(line)}\n" for line in _lines(told))


def as_json(told: Explanation) -> str:
    """Return the answer for programs; `version` changes when a member changes its meaning."""
    where = told.placement
    report = {
        "version": 1,
        "verdict": verdict(told),
        "pod": {"namespace": told.namespace, "name": told.name, "asks": told.asks},
        "state": str(told.state),
        "causes": [finding_as_json(found) for found in told.findings],
        "placement": None
        if where is None
        else {
            "node": where.node,
            "path": where.path,
            "devices": [_plain_device(device) for device in where.devices],
            "shareBytes": where.share_bytes,
            "chosen": where.chosen,
            "wishes": dict(where.wishes),
            "look": list(where.look),
        },
        "scheduler": told.scheduler,
        "unreadable": dict(told.unreadable),
    }
    return json.dumps(report, indent=2) + "\n"


def _title(found: Finding | None) -> str:
    return found.cause.title if found is not None else "nothing is known"


def _lines(told: Explanation) -> Iterator[str]:
    yield from textwrap.wrap(verdict(told), _WIDTH)
    if told.asks:
        yield from labelled("asks", told.asks)
    yield from _placement(told)
    for number, found in enumerate(told.findings, start=1):
        yield from finding_as_lines(found, number)
    if told.scheduler:
        yield ""
        yield from labelled("said", f"by the scheduler: {told.scheduler}")
    if told.unreadable:
        yield ""
        yield "Could not read (what it would tell is left out):"
        for what, why in told.unreadable.items():
            yield from textwrap.wrap(
                f"{what}: {why[:300]}", _WIDTH, initial_indent="   ", subsequent_indent="      "
            )
    if told.findings:
        yield ""
        yield f"More: {_PAGE}#{told.findings[0].cause.id}"


def finding_as_lines(found: Finding, number: int) -> Iterator[str]:
    """Yield one cause for people, with what was seen and what ends it."""
    yield ""
    yield f"{number}. {found.cause.id}: {found.cause.title}"
    if found.nodes:
        count = f"{len(found.nodes)} node{'' if len(found.nodes) == 1 else 's'}"
        yield from labelled("where", f"{count}: {_some(found.nodes)}")
    elif found.count:
        yield from labelled("where", f"{found.count} nodes")
    if found.saw != found.cause.title:
        yield from labelled("saw", found.saw)
    for index, text in enumerate(found.ends):
        yield from labelled("ends" if index == 0 else "", text)


def _placement(told: Explanation) -> Iterator[str]:
    where = told.placement
    if where is None:
        return
    for index, device in enumerate(where.devices):
        yield from labelled("gpus" if index == 0 else "", _device(device))
    yield from labelled("why", where.chosen)
    for index, (key, met) in enumerate(where.wishes.items()):
        word = {True: "met", False: "no longer met", None: "cannot be said"}[met]
        yield from labelled("wishes" if index == 0 else "", f"{key}: {word}")
    for index, command in enumerate(where.look):
        yield from labelled("look" if index == 0 else "", command)


def _device(device: Device) -> str:
    parts = [device.uuid]
    if device.index is not None:
        parts.append(f"GPU {device.index}")
    if device.product:
        parts.append(device.product)
    if device.memory_bytes is not None:
        parts.append(f"{device.memory_bytes >> 20} MiB")
    if device.health:
        parts.append(device.health)
    if device.containers:
        parts.append(f"for {', '.join(device.containers)}")
    return ", ".join(parts)


def labelled(label: str, text: str) -> list[str]:
    """Return a text folded beside its label; commands stay whole."""
    lead = f"   {label:<{_LABEL - 1}} "
    if text.startswith(_COMMANDS):
        return [lead + text]
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def printable(text: str) -> str:
    """Return a text without what others may have put in: terminal commands, line breaks."""
    return "".join(each if each.isprintable() else " " for each in text)


def finding_as_json(found: Finding) -> dict[str, Any]:
    """Return one cause as JSON-ready values."""
    return {
        "id": found.cause.id,
        "title": found.cause.title,
        "saw": found.saw,
        "ends": list(found.ends),
        "count": found.count,
        "nodes": list(found.nodes),
        "holders": list(found.holders),
    }


def _plain_device(device: Device) -> dict[str, Any]:
    return {
        "uuid": device.uuid,
        "index": device.index,
        "product": device.product,
        "memoryBytes": device.memory_bytes,
        "health": device.health or None,
        "containers": list(device.containers),
    }

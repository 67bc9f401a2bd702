"""A headless Chromium, for the tests of what stands in a browser.

It is spoken to in its DevTools protocol, over two pipes: messages of JSON, each ended by a zero byte. That needs no
library.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

_OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
_PATIENCE = 120  # seconds until silence is an error


class Chromium:
    """One page of a browser of its own; ``with`` ends it.

    Args:
        address: what it opens.
        width, height: of the page, in CSS pixels.
    """

    def __init__(self, address: str, width: int = 1280, height: int = 900) -> None:
        self._profile = TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._from, its_output = os.pipe()
        its_input, self._to = os.pipe()

        def placed() -> None:  # where the browser looks for its pipes
            os.dup2(its_input, 3)
            os.dup2(its_output, 4)

        command = [str(BROWSER), *_OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, preexec_fn=placed, pass_fds=(3, 4), **quiet)
        os.close(its_output)
        os.close(its_input)
        self._rest, self._asked, self._session, self._told = b"", 0, {}, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.resize(width, height)
        self.ask("Page.navigate", url=address)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(_PATIENCE)
        os.close(self._from)
        os.close(self._to)
        self._profile.cleanup()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and what the browser answers."""
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": params} | self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._asked:
            self._told.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE)
            found = os.read(self._from, 1 << 20) if ready else b""
            assert found, "the browser is silent" if not ready else "the browser is gone"
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def run(self, script: str) -> Any:
        """What an expression of JavaScript gives, once its promise is kept."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, (script, found)
        return found["result"].get("value")

    def wait_for(self, condition: str, seconds: int = 90) -> None:
        """Until an expression of JavaScript is true."""
        look = f"if ({condition}) yes(true); else if (Date.now() > end) yes(false); else setTimeout(look, 100)"
        begin = f"const end = Date.now() + {1000 * seconds}; const look = () => {{ {look} }}; look()"
        assert self.run(f"new Promise((yes) => {{ {begin} }})"), f"not within {seconds} s: {condition}"

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)

    def errors(self) -> list[dict[str, Any]]:
        """What went wrong in the page so far: exceptions, and errors in its console or log."""
        self.run("0")  # so that all that was told until now has been read
        return [event for event in self._told if _is_error(event)]

    def photograph(self, path: Path) -> None:
        """What the page looks like, as a PNG."""
        path.write_bytes(b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


def _is_error(event: dict[str, Any]) -> bool:
    told = event.get("params", {})
    return (
        event.get("method") == "Runtime.exceptionThrown"
        or (event.get("method") == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"))
        or (event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error")
    )

# Headless Chromium for tests, spoken to over a pipe in its own protocol; skipped where there is none.
import base64
import json
import os
import shutil
import subprocess
import time

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One tab of a browser."""

    def __init__(self, folder, width=1400, height=1000):
        """Start it, its profile in a folder."""
        if CHROMIUM is None:
            pytest.skip("no Chromium here")
        (theirs, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        flags = f"--headless=new --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe \
            --no-first-run --disable-extensions --window-size={width},{height} --user-data-dir={folder}/profile"
        command = f"exec {CHROMIUM} {flags} about:blank 3<&{theirs} 4>&{theirs_out}"
        out = subprocess.DEVNULL
        self.process = subprocess.Popen(["bash", "-c", command], pass_fds=(theirs, theirs_out), stdout=out, stderr=out)
        os.close(theirs), os.close(theirs_out)
        self.out, self.input = os.fdopen(ours_out, "wb", buffering=0), os.fdopen(ours_in, "rb", buffering=0)
        self.count, self.held, self.session, self.events = 0, b"", None, []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        told = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = told["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.out.close(), self.input.close()

    def call(self, method, **params):
        """Call a method and wait for its result; events that come meanwhile are kept."""
        self.count += 1
        told = {"id": self.count, "method": method, "params": params}
        told |= {"sessionId": self.session} if self.session else {}
        self.out.write(json.dumps(told).encode() + b"\0")
        while (message := self.next()).get("id") != self.count:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def next(self):
        """The next message of the browser."""
        while b"\0" not in self.held:
            read = os.read(self.input.fileno(), 2**16)
            assert read, "the browser is gone"
            self.held += read
        message, _, self.held = self.held.partition(b"\0")
        return json.loads(message)

    def open(self, address):
        """Load a page."""
        self.call("Page.navigate", url="about:blank")  # an address that differs only in what follows # loads nothing
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def js(self, code):
        """The value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, code, seconds=60.0):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(code):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.05)

    def key(self, key):
        """Press a key, and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **({"text": key} if len(key) == 1 else {}))

    def screenshot(self, path):
        """Draw what is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @property
    def complaints(self):
        """What the browser had to say: messages of the console, errors, dialogs, refusals of the page's policy."""
        kinds = (
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [event for event in self.events if event.get("method") in kinds]

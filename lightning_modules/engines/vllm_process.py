"""A vLLM server and the line to it: started, asked, and ended with whoever started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_modules.engines import vllm_server

NOT_ITS_OWN = (
    "PYTHON",
    "VIRTUAL_ENV",
    "MASTER_",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "WORLD_SIZE",
    "NODE_RANK",
    "GROUP_RANK",
    "TORCHELASTIC",
)
"""Beginnings of variables that speak of this process's environment and devices."""
LOG = "server.log"
TAIL = 2**16
"""Bytes of the log that are searched for a cause."""


class VLLMError(RuntimeError):
    """VLLM does not go on; says what it was doing, why, and where its log lies."""


class Link:
    """A server that was started, or one that was running, and a folder for what passes through files.

    Attributes:
        folder: a temporary one; holds the log of a server that was started.
    """

    def __init__(self, python: str, path: str, folder: str, cards: str) -> None:
        """Start a server, or connect to one.

        Args:
            python: interpreter of vLLM's environment; empty connects.
            path: socket of a running server.
            folder: where temporary folders are made; empty where the system has them.
            cards: CUDA_VISIBLE_DEVICES of a server that is started; empty leaves it.

        Raises:
            VLLMError: there is no such interpreter, or nobody listens.
        """
        self.path, self.process = path, None
        self.folder = Path(tempfile.mkdtemp(prefix="vllm-", dir=folder or None))
        try:
            self.connection = self._started(python, cards) if python else connected(path)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise VLLMError(f"vLLM at {python or path} cannot be reached: {error}") from error
        self._end = weakref.finalize(self, _ended, os.getpid(), self.process, self.connection, self.folder)

    def _started(self, python: str, cards: str) -> socket.socket:
        own, other = socket.socketpair()
        variables = {name: value for name, value in os.environ.items() if not name.startswith(NOT_ITS_OWN)}
        # Isolated, so that neither our environment's modules nor the engine's own vllm.py are found by it.
        command = [python, "-I", "-u", vllm_server.__file__, "--fd", str(other.fileno())]
        with other, open(self.folder / LOG, "wb") as log:
            self.process = subprocess.Popen(
                command,
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables | ({"CUDA_VISIBLE_DEVICES": cards} if cards else {}),
                start_new_session=True,
            )
        return own

    def ask(
        self, message: dict[str, Any], parts: Sequence[Any] = (), *, doing: str, silence: float
    ) -> Iterator[dict[str, Any]]:
        """Put a request, and give every reply as it comes.

        Args:
            message: in JSON's types.
            parts: bytes that go with it.
            doing: what this is, for the message.
            silence: seconds without a word after which the server counts as stalled.

        Raises:
            VLLMError: it said so, or ended, or stalled, or what it says is no reply; it has been ended.
        """
        self.connection.settimeout(silence)
        more = True
        try:
            vllm_server.send(self.connection, message, parts)
            while more:
                reply, _ = vllm_server.receive(self.connection)
                if "error" in reply:
                    raise self.failed(f"failed while {doing}: {reply['error']}")
                more = reply.pop("more") is True
                yield reply
        except TimeoutError as error:
            raise self.failed(f"stalled: no word for {silence:g} s while {doing}") from error
        except (EOFError, ConnectionError) as error:
            raise self.failed(f"died while {doing}{self._exit()}") from error
        except (ValueError, KeyError) as error:
            raise self.failed(f"gave no reply that can be read while {doing}: {error}") from error

    def failed(self, cause: str) -> VLLMError:
        """End the server, keep its log, and make the error that says both."""
        where = f"it listened at {self.path}"
        if self.process is not None:
            kept, last = self.folder.with_suffix(".log"), last_error(self.folder / LOG)
            with contextlib.suppress(OSError):
                (self.folder / LOG).rename(kept)
            where = f"its log is {kept}" + (f", where the last error reads: {last}" if last else "")
        self.close()
        return VLLMError(f"vLLM {cause}; {where}. The same command goes on from the last checkpoint")

    def _exit(self) -> str:
        """How the process ended, where it is known."""
        if self.process is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(timeout=5)
            return f" (killed by {signal.Signals(-code).name})" if code < 0 else f" (exit code {code})"
        return ""

    def close(self) -> None:
        """End a server that was started, leave one that was running, and remove the folder."""
        self._end()


def connected(path: str) -> socket.socket:
    """A connection to a running server."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _ended(owner: int, process: subprocess.Popen | None, connection: socket.socket, folder: Path) -> None:
    connection.close()
    if os.getpid() != owner:
        return  # a fork of the run has it too
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it holds nothing that would have to be saved
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)  # a driver may hold it for longer
    shutil.rmtree(folder, ignore_errors=True)


def last_error(log: Path) -> str:
    """The last line of a log that names an error, shortened."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    found = [line.strip() for line in lines if "Error" in line or "error:" in line]
    return found[-1][:300] if found else ""

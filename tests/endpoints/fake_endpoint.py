# A chat-completions endpoint in a thread of the test: it answers as it is told to, and remembers what it was asked.
import base64
import io
import json
import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from datamodules.batch import image_key


@dataclass
class Says:
    """One reply on the wire."""

    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    announced: int = 0  # more bytes than come
    drip: float = 0.0  # seconds between two bytes
    stall: float = 0.0  # seconds before anything comes
    reset: bool = False  # break the connection instead


def completion(text, finish="stop", model="fake-1", **changes) -> bytes:
    """A well-formed reply."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"model": model, "choices": [choice], "usage": {"total_tokens": 30}} | changes).encode()


@dataclass
class Asked:
    """One request as it came."""

    text: str
    pictures: tuple
    system: str
    headers: dict
    content: dict


def read(headers, body: bytes) -> Asked:
    content = json.loads(body)
    system = "".join(m["content"] for m in content["messages"] if m["role"] == "system")
    said = content["messages"][-1]["content"]
    parts = [{"type": "text", "text": said}] if isinstance(said, str) else said
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    keys = []
    for url in urls:
        assert url.startswith("data:image/png;base64,")
        keys.append(image_key(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")))
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    return Asked(text, tuple(keys), system, dict(headers), content)


class Fake:
    """The server; `behave(asked, number)` says what becomes of the number-th request."""

    def __init__(self, behave):
        self.behave, self.asked, self.lock, self.closed = behave, [], threading.Lock(), threading.Event()

    def texts(self):
        return [asked.text for asked in self.asked]


@contextmanager
def serving(behave):
    fake = Fake(behave)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked = read(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            with fake.lock:
                fake.asked.append(asked)
                number = len(fake.asked)
            says = fake.behave(asked, number)
            fake.closed.wait(says.stall)
            try:
                self.say(says)
            except OSError:
                pass  # the client gave up
            self.close_connection = True

        def say(self, says):
            if says.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            self.send_response(says.status)
            for name, value in {"Content-Length": len(says.body) + says.announced, **says.headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            for i in range(0, len(says.body), 1 if says.drip else len(says.body)):
                self.wfile.write(says.body[i : i + 1] if says.drip else says.body)
                self.wfile.flush()
                if fake.closed.wait(says.drip):
                    return

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.closed.set()
        server.shutdown()
        server.server_close()

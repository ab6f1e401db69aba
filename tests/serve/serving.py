"""A server under test: start it on a free port, talk to it, stop it."""
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

BUILD = os.environ.get("BUILD", "build")
RERANK, NULL = f"{BUILD}/rerank", f"{BUILD}/serve-null"
MODEL = "models/mini"


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """with Server("--max-docs", "5") as s: s.post("/rerank", {...}).json"""

    def __init__(self, *flags, binary=NULL, env=None, log=False):
        self.log = tempfile.NamedTemporaryFile(prefix="rerank-log-")
        port = [] if {"--port", "--unix"} & set(flags) else ["--port", "0"]
        args = [binary, "serve", *port, "--log", self.log.name, *flags]
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env={**os.environ, **(env or {})})
        line = self.process.stdout.readline().decode()
        if not line:
            raise RuntimeError(self.process.stderr.read().decode())
        self.url = line.split()[0]
        self.host, _, port = self.url.rpartition("/")[2].rpartition(":")
        self.port = int(port) if port.isdigit() else None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self, sig=signal.SIGTERM, timeout=20):
        """Exit status; anything a sanitizer said is in it."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            _, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert b"Sanitizer" not in err, err.decode()
        return self.process.returncode

    def request(self, method, path, body=None, headers=None, timeout=30):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if self.url.startswith("unix:"):
            return self.request_over_unix(method, path, data, headers or {}, timeout)
        req = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(req, timeout=timeout) as r:
                return Answer(r.status, r.headers, r.read())
        except urllib.error.HTTPError as e:
            return Answer(e.code, e.headers, e.read())

    def request_over_unix(self, method, path, data, headers, timeout):
        c = http.client.HTTPConnection("localhost")
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.settimeout(timeout)
        c.sock.connect(self.url.removeprefix("unix:"))
        c.request(method, path, data, {"Connection": "close", **headers})
        r = c.getresponse()
        return Answer(r.status, r.headers, r.read())

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.request("POST", path, body, **kw)

    def connect(self):
        s = socket.create_connection((self.host, self.port), timeout=20)
        return s

    def raw(self, data, timeout=5):
        """Send bytes, read until the server closes or is silent."""
        with self.connect() as s:
            s.settimeout(timeout)
            got = b""
            try:
                s.sendall(data)
                while chunk := s.recv(65536):
                    got += chunk
            except (TimeoutError, ConnectionError):
                pass
            return got

    def metric(self, line):
        """The value of one line of /metrics, e.g. 'rerank_jobs_total'."""
        for text in self.get("/metrics").body.decode().splitlines():
            if text.startswith(line + " "):
                return float(text.rsplit(" ", 1)[1])
        return None

    def log_lines(self):
        with open(self.log.name) as f:
            return [json.loads(line) for line in f]


def until(what, seconds=10):
    """Wait for what() to be true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)

"""Many connections, slow peers, dying replicas behind real balancers, and memory under mixed load."""
import asyncio
import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from serving import MODEL, RERANK, Server, until

BODY = json.dumps({"query": "q", "texts": ["a" * n for n in range(1, 20)]}).encode()
POST = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


async def read_answer(reader):
    """(status, headers, body) of one HTTP answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    fields = {k.lower(): v for k, v in fields.items()}
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    return int(head.split()[1]), fields, body


def test_idle_and_active_connections():
    """2,000 connections that say nothing, and 500 that work, at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 6000:
        pytest.skip(f"the limit on file descriptors is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def active(s, start):
        r, w = await asyncio.open_connection(s.host, s.port)
        await start.wait()
        for _ in range(10):
            w.write(POST)
            status, _, body = await read_answer(r)
            assert status == 200 and len(json.loads(body)) == 19
        w.close()

    async def main(s):
        idle = [await asyncio.open_connection(s.host, s.port) for _ in range(2000)]
        start = asyncio.Event()
        tasks = [asyncio.create_task(active(s, start)) for _ in range(500)]
        await asyncio.sleep(0.5)
        start.set()
        await asyncio.gather(*tasks)
        assert s.metric("rerank_http_connections") >= 2000
        r, w = idle[1234]
        w.write(POST)
        assert (await read_answer(r))[0] == 200
        for _, w in idle:
            w.close()

    with Server() as s:
        asyncio.run(asyncio.wait_for(main(s), 60))
        until(lambda: s.metric("rerank_http_connections") <= 2)
        assert s.metric('rerank_http_requests_total{method="POST",path="/rerank",code="200"}') == 5001
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_senders_and_readers():
    """A byte at a time in, a little at a time out; others are served meanwhile."""
    docs = ["x" * 2000] * 6000
    big = json.dumps({"query": "q", "documents": docs, "return_documents": True}).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(big)
    with Server("--write-timeout", "2") as s:
        def sender():
            with s.connect() as c:
                for i in range(len(POST)):
                    c.sendall(POST[i:i + 1])
                    time.sleep(0.002)
                assert c.recv(100).startswith(b"HTTP/1.1 200")

        def reader(got):
            with s.connect() as c:
                c.sendall(head + big)
                total = 0
                while total < len(docs) * 2000:
                    total += len(c.recv(200000))
                    time.sleep(0.005)
                got.append(total)

        slow, stuck = [], [s.connect() for _ in range(3)]
        threads = [threading.Thread(target=sender) for _ in range(5)]
        threads += [threading.Thread(target=reader, args=(slow,)) for _ in range(3)]
        [t.start() for t in threads]
        for c in stuck:  # these take nothing of their answers
            c.sendall(head + big)
        for _ in range(50):
            start = time.monotonic()
            assert s.post("/rerank", {"query": "q", "texts": ["a"]}).status == 200
            assert time.monotonic() - start < 2
            time.sleep(0.02)
        [t.join(30) for t in threads]
        assert len(slow) == 3
        until(lambda: s.metric("rerank_http_clients_left_total") == 3)  # cut by --write-timeout
        assert s.metric("rerank_http_body_bytes_held") == 0
        [c.close() for c in stuck]


def test_killed_clients():
    """Processes that die at any point of a request leave nothing behind."""
    with Server(env={"NULL_US": "500"}) as s:
        children = []
        for i in range(24):
            pid = os.fork()
            if pid == 0:
                with s.connect() as c:
                    while True:
                        c.sendall(POST)
            children.append(pid)
        random.seed(7)
        for pid in children:
            time.sleep(random.random() * 0.05)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        until(lambda: s.metric("rerank_http_requests_in_flight") == 1)
        until(lambda: s.metric("rerank_queue_tokens") == 0)
        assert s.metric("rerank_http_body_bytes_held") == 0
        assert s.post("/rerank", {"query": "q", "texts": ["a"]}).status == 200


# ---- replicas behind a balancer ------------------------------------------------------------------

NGINX = """
daemon off; error_log /dev/null; pid {dir}/pid;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
    uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    upstream replicas {{ {servers} keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_connect_timeout 1s;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 512
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend in
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance leastconn
    option httpchk GET /ready
    default-server check inter 100 fall 1 rise 1
{servers}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_balancer(name, ports, tmp_path):
    port, conf = free_port(), tmp_path / "conf"
    if name == "nginx":
        servers = " ".join(f"server 127.0.0.1:{p} max_fails=1 fail_timeout=1s;" for p in ports)
        conf.write_text(NGINX.format(dir=tmp_path, servers=servers, port=port))
        args = ["nginx", "-p", str(tmp_path), "-c", str(conf)]
    else:
        servers = "\n".join(f"    server r{p} 127.0.0.1:{p}" for p in ports)
        conf.write_text(HAPROXY.format(servers=servers, port=port))
        args = ["haproxy", "-db", "-f", str(conf)]
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up():
        try:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            c.request("GET", "/health")
            return c.getresponse().status == 200
        except OSError:
            return False

    until(up)
    return process, port


def retrying_client(port, jobs, done):
    """Gives no job up: waits as Retry-After says, a moment where nothing says."""
    for job in jobs:
        for attempt in range(50):
            wait = 0.05
            try:
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                c.request("POST", "/v1/rerank", json.dumps({"query": "q", "documents": ["a" * 9, job]}))
                r = c.getresponse()
                body = r.read()
                if r.status == 200:
                    done[job] = attempt
                    assert len(json.loads(body)["results"]) == 2
                    break
                assert r.status in (429, 502, 503, 504), (r.status, body)
                wait = float(r.getheader("retry-after") or wait)
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(wait)


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_killed_replica(balancer, tmp_path):
    path = shutil.which(balancer) or shutil.which(balancer, path="/usr/sbin")
    if not path:
        pytest.skip(f"{balancer} is not installed")
    os.environ["PATH"] += ":/usr/sbin"
    replicas = [Server(env={"NULL_US": "2000"}) for _ in range(3)]
    process, port = start_balancer(balancer, [r.port for r in replicas], tmp_path)
    try:
        done = {}
        jobs = [[f"{t}-{i}" for i in range(80)] for t in range(8)]
        threads = [threading.Thread(target=retrying_client, args=(port, j, done)) for j in jobs]
        [t.start() for t in threads]
        until(lambda: len(done) > 100)
        replicas[0].process.kill()
        [t.join(60) for t in threads]
        assert len(done) == 640, f"{640 - len(done)} requests were lost"
        served = [r.metric('rerank_http_requests_total{method="POST",path="/v1/rerank",code="200"}')
                  for r in replicas[1:]]
        assert min(served) > 100
    finally:
        process.terminate()
        process.wait()
        replicas[0].process.wait()
        [r.stop() for r in replicas[1:]]


# ---- soak ----------------------------------------------------------------------------------------


def test_soak():
    """The short form of `make soak`, on the real engine."""
    r = subprocess.run(["python3", "bench/serve_soak.py", "--binary", RERANK, "--model", MODEL,
                        "--seconds", os.environ.get("SOAK", "45")], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr

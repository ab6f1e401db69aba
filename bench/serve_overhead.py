#!/usr/bin/env python3
"""What the server itself costs: HTTP, JSON and hand-overs, without tokenizing and without a model.

    make bench-serve

One client on a kept connection sends 100 documents of 2 KB to serve-null (the server over an engine
that answers at once), both on one core. Printed is the time from the first byte sent to the
last byte read, the client's own work (ready-made bytes, no parsing) included, and the server's
share as its Server-Timing tells it."""
import argparse
import json
import os
import platform
import random
import re
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests", "serve"))
from serving import Server  # noqa: E402


LETTERS = "etaoin shrdlu " * 6 + "\n"  # a line end every 85 characters, which JSON escapes


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(p / 100 * len(values)))]


def exchange(c, data):
    """(seconds, answer) of one request."""
    start = time.perf_counter()
    c.sendall(data)
    got = b""
    while b"\r\n\r\n" not in got:
        got += c.recv(1 << 20)
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower()).group(1))
    while len(body) < length:
        body += c.recv(1 << 20)
    return time.perf_counter() - start, head.decode(), body


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--binary", default="build/serve-null")
    ap.add_argument("--requests", type=int, default=2000)
    a = ap.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
               platform.machine())
    print(f"{cpu}, one core for server and client; {a.requests} requests, seed 1")
    print(f"{'documents':>9} {'bytes each':>10} {'p50 ms':>8} {'p99 ms':>8} {'in server p50':>13} {'MB/s':>7}")
    rng = random.Random(1)
    with Server(binary=a.binary) as s, s.connect() as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n, size in ((1, 200), (10, 1000), (100, 2000), (1000, 2000)):
            docs = ["".join(rng.choice(LETTERS) for _ in range(size)) for _ in range(n)]
            body = json.dumps({"query": "what is it", "documents": docs}).encode()
            data = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            count = max(50, a.requests // max(1, n // 10))
            times, inside = [], []
            for i in range(count + count // 10):
                t, head, answer = exchange(c, data)
                assert head.startswith("HTTP/1.1 200"), head
                if i >= count // 10:  # the first ones warm up
                    times.append(t)
                    inside.append(float(re.search(r"total;dur=([\d.]+)", head).group(1)))
            p50 = percentile(times, 50)
            print(f"{n:9} {size:10} {p50 * 1e3:8.3f} {percentile(times, 99) * 1e3:8.3f} "
                  f"{percentile(inside, 50):13.3f} {len(data) / p50 / 1e6:7.0f}")


if __name__ == "__main__":
    main()

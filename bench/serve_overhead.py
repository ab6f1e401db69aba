#!/usr/bin/env python3
"""What the server itself costs: HTTP, JSON, hand-overs and scheduling, without a model.

    make bench-serve

One client on a kept connection sends up to 1,000 documents, both on one core, to

    serve-null    the server over an engine that answers at once: no tokenizer, no scheduler
    serve-sched   the whole server over a backend that answers at once; documents are not cached

Printed is the time from the first byte sent to the last byte read, the client's own work (ready-made bytes, no
parsing) included, less the time of tokenizing as the answer's Server-Timing tells it; and that."""
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
from serving import MODEL, Server  # noqa: E402


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


def measure(name, server, requests):
    rng = random.Random(1)
    with server as s, s.connect() as c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n, size in ((1, 200), (10, 1000), (100, 2000), (1000, 2000)):
            docs = ["".join(rng.choice(LETTERS) for _ in range(size)) for _ in range(n)]
            body = json.dumps({"query": "what is it", "documents": docs}).encode()
            data = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            count = max(50, requests // max(1, n // 10))
            times, tokenizing = [], []
            for i in range(count + count // 10):
                t, head, _ = exchange(c, data)
                assert head.startswith("HTTP/1.1 200"), head
                if i >= count // 10:  # the first ones warm up
                    tokenizing.append(float(re.search(r"tokenize;dur=([\d.]+)", head).group(1)))
                    times.append(t * 1e3 - tokenizing[-1])
            print(f"{name:12} {n:9} {size:10} {count:8} {percentile(times, 50):8.3f} {percentile(times, 99):8.3f} "
                  f"{percentile(tokenizing, 50):15.3f}", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--requests", type=int, default=2000)
    a = ap.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
               platform.machine())
    print(f"{cpu}, one core for server and client; seed 1")
    print(f"{'server':12} {'documents':>9} {'bytes each':>10} {'requests':>8} {'p50 ms':>8} {'p99 ms':>8} "
          f"{'tokenizing p50':>15}")
    measure("serve-null", Server(binary=f"{a.build}/serve-null"), a.requests)
    measure("serve-sched", Server("-m", MODEL, "--cache-tokens", "-1", binary=f"{a.build}/serve-sched"), a.requests)


if __name__ == "__main__":
    main()

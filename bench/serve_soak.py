#!/usr/bin/env python3
"""Mixed load for a long time: does the server's memory grow, does anything fail?

    make soak [SECONDS=600]

Clients of every kind at once: small and large requests, kept and new connections, malformed bodies,
clients that leave. Resident memory is sampled each second. After the first stage (a tenth of
the time, at least 15 s) its highest value may grow by less than 2 %. Under a sanitizer, whose own
memory grows, --growth 1000."""
import argparse
import http.client
import json
import os
import random
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests", "serve"))
from serving import Server  # noqa: E402

WORDS = "river bridge leaf autumn query passage search engine Brücke 橋 река جسر".split()


def text(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def kept(s, rng, stop, count):
    c = http.client.HTTPConnection(s.host, s.port, timeout=60)
    while not stop.is_set():
        docs = [text(rng, rng.choice((3, 20, 60))) for _ in range(rng.choice((1, 5, 20)))]
        path = rng.choice(("/rerank", "/v1/rerank", "/v2/rerank"))
        key = "texts" if path == "/rerank" and rng.random() < 0.5 else "documents"
        c.request("POST", path, json.dumps({"query": text(rng, 5), key: docs}))
        r = c.getresponse()
        r.read()
        count[r.status] = count.get(r.status, 0) + 1


def fresh(s, rng, stop, count):
    while not stop.is_set():
        path, body = rng.choice((
            ("/rerank", b"{"), ("/nope", b""), ("/tokenize", json.dumps({"inputs": text(rng, 50)})),
            ("/v1/rerank", json.dumps({"query": "q", "documents": [text(rng, 10)]})),
            ("/predict", json.dumps({"inputs": [["a", "b"]]})), ("/rerank", b"x" * 200000)))
        a = s.post(path, body if isinstance(body, bytes) else body.encode())
        s.get(rng.choice(("/health", "/metrics", "/info", "/")))
        count[a.status] = count.get(a.status, 0) + 1
        time.sleep(0.02)


def leaver(s, rng, stop, count):
    body = json.dumps({"query": "q", "documents": [text(rng, 100)] * 10}).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    while not stop.is_set():
        with socket.create_connection((s.host, s.port)) as c:
            c.sendall((head + body)[:rng.randrange(len(head) + len(body) + 1)])
            time.sleep(rng.random() * 0.05)
        count["left"] = count.get("left", 0) + 1


def rss(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--binary", default="build/rerank")
    ap.add_argument("--model", default="models/mini")
    ap.add_argument("--seconds", type=float, default=600)
    ap.add_argument("--growth", type=float, default=2, help="percent that memory may grow by")
    a = ap.parse_args()
    first = min(max(15.0, a.seconds / 10), a.seconds / 2)
    stop, count, samples = threading.Event(), {}, []
    # A small cache of tokenized documents: one that fills for minutes would look like a leak.
    with Server("-m", a.model, "--cache-tokens", "65536", binary=a.binary) as s:
        kinds = [kept] * 4 + [fresh] * 2 + [leaver] * 2
        threads = [threading.Thread(target=k, args=(s, random.Random(i), stop, count), daemon=True)
                   for i, k in enumerate(kinds)]
        [t.start() for t in threads]
        start = time.monotonic()
        while (now := time.monotonic() - start) < a.seconds:
            time.sleep(1)
            samples.append((now, rss(s.process.pid)))
        stop.set()
        [t.join(60) for t in threads]
        bad = s.metric("rerank_failed_total")
    early = max(v for t, v in samples if t <= first)
    late = max(v for t, v in samples if t > first)
    growth = late / early - 1
    print(f"{a.seconds:.0f} s, answers {dict(sorted(count.items(), key=str))}")
    print(f"resident: {early / 1e6:.1f} MB at most in the first {first:.0f} s, {late / 1e6:.1f} MB "
          f"after, growth {growth:+.2%}")
    ok = growth < a.growth / 100 and not bad and count.get(200, 0) > 0 and not any(
        isinstance(k, int) and k >= 500 for k in count)
    print("ok" if ok else "FAILED")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

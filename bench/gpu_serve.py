#!/usr/bin/env python3
"""gpu_serve.py RERANK ENGINE MODEL_DIR - end to end over HTTP on a card.

    make bench-gpu-serve

Starts `rerank serve --backend cuda` and asks it to rank 100 documents of ragged lengths (those of
gpu_torch_hf.py, cut to the token) for a query: one client in turn for the latency, then 8 clients at
once for 5 seconds for the rate, beside what the engine alone does with the same tokens (gpu_engine,
ragged100). The document cache is off; every request has other documents."""
import glob
import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time

from gpu_lengths import ragged_lengths

PORT, CLIENTS, SECONDS, TURNS = 8798, 8, 5, 60


def post(conn, path, body):
    conn.request("POST", path, body, {"Content-Type": "application/json"})
    reply = conn.getresponse()
    data = reply.read()
    if reply.status != 200:
        raise RuntimeError(f"{path}: {reply.status} {data[:200]}")
    return data


def bodies(conn, n, texts):
    """n requests whose pairs have the ragged lengths, special tokens and query counted."""
    rng, out, tokens = random.Random(1), [], 0
    for _ in range(n):
        query = rng.choice(texts)[:20]
        asked = len(json.loads(post(conn, "/tokenize", json.dumps(
            {"inputs": [query], "add_special_tokens": False})))[0])
        long = [" ".join(rng.choice(texts) for _ in range(12))[:6000] for _ in range(100)]
        cut = []
        for length, doc, toks in zip(ragged_lengths(), long, json.loads(post(
                conn, "/tokenize", json.dumps({"inputs": long, "add_special_tokens": False})))):
            keep = max(1, length - asked - 4)
            cut.append(doc[:toks[min(keep, len(toks)) - 1]["stop"]])
            tokens += min(keep, len(toks)) + asked + 4
        out.append(json.dumps({"query": query, "texts": cut}).encode())
    return out, tokens / n


def saturate(requests):
    done, stop = [0] * CLIENTS, time.perf_counter() + SECONDS

    def client(i):
        conn, k = http.client.HTTPConnection("127.0.0.1", PORT), i
        while time.perf_counter() < stop:
            post(conn, "/rerank", requests[k % len(requests)])
            done[i], k = done[i] + 1, k + 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    start = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(done) / (time.perf_counter() - start)


def measure(binary, engine, model, precision, texts):
    out = subprocess.run([engine, model, precision, "ragged100"], capture_output=True, text=True, check=True)
    alone = float(re.search(r"time ragged100 .* ([\d.]+) ms", out.stdout)[1])
    server = subprocess.Popen([binary, "serve", "-m", model, "--backend", "cuda", "--precision", precision,
                               "--port", str(PORT), "--max-batch-tokens", "36864", "--cache-tokens", "-1",
                               "--log", "off"])
    try:
        for _ in range(300):
            try:
                conn = http.client.HTTPConnection("127.0.0.1", PORT)
                conn.request("GET", "/ready")
                if conn.getresponse().read() is not None:
                    break
            except OSError:
                time.sleep(0.1)
        requests, tokens = bodies(conn, 16, texts)
        late = []
        for i in range(TURNS):
            start = time.perf_counter()
            post(conn, "/rerank", requests[i % len(requests)])
            late.append((time.perf_counter() - start) * 1e3)
        late = sorted(late[5:])
        rate = saturate(requests)
    finally:
        server.terminate()
        server.wait()
    best = 17996 / alone * 1e3
    print(f"| {precision} | {tokens:.0f} | {alone:.2f} | {late[len(late) // 2]:.2f} | {late[int(len(late) * .99)]:.2f} | "
          f"{rate * 100:.0f} | {rate * tokens / best * 100:.0f} % |", flush=True)


def main():
    binary, engine, model = sys.argv[1:4]
    texts = []
    for path in sorted(glob.glob("models/mini/eval/**/corpus.jsonl", recursive=True)):
        with open(path, encoding="utf-8") as f:
            texts += [json.loads(line)["text"] for line in f]
    if not texts:
        sys.exit("no texts in models/mini/eval: run make models first")
    print("| precision | tokens a request | engine alone ms | p50 ms | p99 ms | pairs/s with 8 clients | "
          "of the engine's rate |\n|---|---|---|---|---|---|---|", flush=True)
    for precision in ("fp16", "fp8"):
        measure(binary, engine, model, precision, texts)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""rerank serve beside infinity_emb under one open-loop load: same model, same cores, same requests.

    make bench-serve                      or: bench/serve.py --infinity DIR/bin/infinity_emb ...

Requests arrive at random (Poisson) at rising rates whether or not earlier ones are answered, and a
request's latency counts from the moment it was due, not from when it could be sent: a server
that stalls is charged for all who would have come meanwhile (no coordinated omission). Sizes are mixed:
1 to 20 passages, cut to lognormal lengths, from the evaluation sets in models/mini/eval. A rate ends when
all its requests are answered or 30 s after the last was due; what is not answered counts as infinitely late.

goodput   answers a second that came within --slo of being due
capacity  the highest rate tried with p99 within --slo"""
import argparse
import asyncio
import glob
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

WEIGHTS = {1: 30, 3: 35, 10: 25, 20: 10}


def corpus():
    texts = []
    for path in sorted(glob.glob("models/mini/eval/**/corpus.jsonl", recursive=True)):
        with open(path) as f:
            texts += [json.loads(line)["text"] for line in f]
    if not texts:
        sys.exit("no texts in models/mini/eval: run make first")
    return texts


def trace(rate, seconds, texts, seed, fixed):
    """[(due, body, documents)]"""
    rng, out, t = random.Random(seed), [], 0.0
    while True:
        t += rng.expovariate(rate)
        if t > seconds:
            return out
        n = fixed or rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        docs = []
        for _ in range(n):
            size = 200 if fixed else int(rng.lognormvariate(math.log(150), 0.6))
            docs.append(rng.choice(texts)[:max(20, min(size, 2000))])
        query = rng.choice(texts)[:60]
        body = json.dumps({"model": "mini", "query": query, "documents": docs}).encode()
        out.append((t, b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(body) + body, n))


async def ask(host, port, pool, data):
    """Status of one exchange on a kept connection, or a new one."""
    while True:
        fresh = not pool
        r, w = await asyncio.open_connection(host, port) if fresh else pool.pop()
        try:
            w.write(data)
            head = (await r.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await r.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            w.close()
            if fresh:
                raise
            continue  # a kept connection may be closed by the server at any time
        pool.append((r, w))
        return int(head.split()[1])


async def load(host, port, requests):
    """Latency of each request, from when it was due; None where no 200 came."""
    pool, late = [], [None] * len(requests)
    start = time.perf_counter() + 0.2

    async def one(i, due, data):
        try:
            if await ask(host, port, pool, data) == 200:
                late[i] = time.perf_counter() - start - due
        except OSError:
            pass

    tasks = []
    for i, (due, data, _) in enumerate(requests):
        await asyncio.sleep(max(0, start + due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(i, due, data)))
    await asyncio.wait(tasks, timeout=30)
    for t in tasks:
        t.cancel()
    for _, w in pool:
        w.close()
    return late, time.perf_counter() - start


def percentile(late, p):
    values = sorted(math.inf if x is None else x for x in late)
    return values[min(len(values) - 1, int(p / 100 * len(values)))]


def rss_mb(pid):
    pids, total = [pid], 0
    for p in pids:
        try:
            kids = open(f"/proc/{p}/task/{p}/children").read().split()
            pids += [int(k) for k in kids]
            total += int(open(f"/proc/{p}/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
        except OSError:
            pass
    return total / 1e6


def wait_up(url, process):
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{process.args[0]} ended: see its log")
            time.sleep(0.1)
    sys.exit("a server did not start")


def servers(a):
    env = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))), "HF_HUB_OFFLINE": "1",
           "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
    for p in a.precision.split(","):
        yield (f"rerank serve {p}", a.port, "/ready", env,
               [a.binary, "serve", "-m", a.model, "--port", str(a.port), "--precision", p, "--log", "off"], None)
    if a.infinity and a.infinity_engine == "optimum":
        folder = tempfile.mkdtemp(prefix="infinity-")  # optimum looks for a bare file name in its folder
        for path in glob.glob(f"{a.model}/*.json"):
            shutil.copy(path, folder)
        subprocess.run([a.binary, "export", "-m", a.model, "-o", f"{folder}/model.onnx"], check=True,
                       stderr=subprocess.DEVNULL)
        yield ("infinity_emb optimum fp32", a.port + 1, "/health", env,
               [os.path.abspath(a.infinity), "v2", "--model-id", ".", "--served-model-name", "mini",
                "--host", "127.0.0.1", "--port", str(a.port + 1), "--engine", "optimum", "--device", "cpu",
                "--no-bettertransformer", "--no-model-warmup", "--log-level", "error"], folder)
        shutil.rmtree(folder)
    elif a.infinity:
        yield (f"infinity_emb {a.infinity_engine} fp32", a.port + 1, "/health", env,
               [a.infinity, "v2", "--model-id", os.path.abspath(a.model), "--served-model-name", "mini",
                "--host", "127.0.0.1", "--port", str(a.port + 1), "--engine", a.infinity_engine, "--device", "cpu",
                "--dtype", "float32", "--no-bettertransformer", "--no-model-warmup", "--log-level", "error"], None)


def tokens_per_document(a, texts):
    """Mean tokens of a pair of the trace, as our tokenizer counts them."""
    lines = []
    for _, data, _ in trace(20, 5, texts, a.seed, a.fixed):
        body = json.loads(data.split(b"\r\n\r\n", 1)[1])
        lines += [json.dumps({"query": body["query"], "document": d}) for d in body["documents"]]
    out = subprocess.run([a.binary, "tokenize", "-m", a.model, "--pairs", "-"], input="\n".join(lines),
                         text=True, capture_output=True, check=True).stdout
    counts = [len(json.loads(line)["ids"]) for line in out.splitlines()]
    return sum(counts) / len(counts)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", default="build/rerank")
    ap.add_argument("--model", default="models/mini")
    ap.add_argument("--infinity", help="the infinity_emb program; without it only ours runs")
    ap.add_argument("--infinity-engine", default="torch",
                    help="torch, or optimum: ONNX Runtime on our export (pip install optimum-onnx)")
    ap.add_argument("--precision", default="fp32,auto")
    ap.add_argument("--rates", default="1,2,4,8,16,24,32")
    ap.add_argument("--seconds", type=float, default=8)
    ap.add_argument("--slo", type=float, default=1.0, help="seconds")
    ap.add_argument("--fixed", type=int, default=0, help="passages of every request, 200 characters each")
    ap.add_argument("--port", type=int, default=18800)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    texts = corpus()
    mean = tokens_per_document(a, texts)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
               platform.machine())
    print(f"{cpu}, {len(os.sched_getaffinity(0))} cores, shared with the load; Poisson arrivals, seed {a.seed}, "
          f"{a.seconds:g} s a rate; mean {mean:.0f} tokens a pair; slo {a.slo:g} s")
    print(f"{'server':32} {'req/s':>6} {'goodput':>8} {'p50 ms':>8} {'p99 ms':>8} {'tokens/s':>9} {'RSS MB':>7}")
    capacity = {}
    for name, port, path, env, args, folder in servers(a):
        with subprocess.Popen(args, env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            try:
                wait_up(f"http://127.0.0.1:{port}{path}", p)
                asyncio.run(load("127.0.0.1", port, trace(2, 3, texts, 99, a.fixed)))  # warm up
                for rate in [float(r) for r in a.rates.split(",")]:
                    requests = trace(rate, a.seconds, texts, a.seed, a.fixed)
                    late, took = asyncio.run(load("127.0.0.1", port, requests))
                    good = sum(x is not None and x <= a.slo for x in late) / a.seconds
                    docs = sum(n for x, (_, _, n) in zip(late, requests) if x is not None)
                    p99 = percentile(late, 99)
                    print(f"{name:32} {rate:6.1f} {good:8.1f} {percentile(late, 50) * 1e3:8.0f} "
                          f"{p99 * 1e3:8.0f} {docs * mean / took:9.0f} {rss_mb(p.pid):7.0f}", flush=True)
                    if p99 <= a.slo:
                        capacity[name] = max(rate, capacity.get(name, 0))
                    if p99 > 6 * a.slo:
                        break
            finally:
                p.terminate()
    print("capacity: " + ", ".join(f"{n} {r:g} req/s" for n, r in capacity.items()))


if __name__ == "__main__":
    main()

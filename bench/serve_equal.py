#!/usr/bin/env python3
"""Latency of equal requests at a share of the rate a server saturates at.

    bench/serve_equal.py --model DIR -- --backend cuda --precision fp16

Starts `rerank serve` with what follows --. For each size of request: first as many as it takes, each
connection asking again when answered (saturation); then open loop, Poisson arrivals at --share of that
rate, latency from when a request was due (bench/serve.py). Clients are processes of their own, so that on
a machine with cores to spare they do not hold the server up."""
import argparse
import asyncio
import multiprocessing
import subprocess
import time

from serve import ask, corpus, load, percentile, trace, wait_up

CONNECTIONS = 32  # of each process, at saturation


async def saturate(port, bodies, seconds):
    """Answers a second with every connection kept busy."""
    end, done, pool = time.perf_counter() + seconds, 0, []

    async def client(i):
        nonlocal done
        while time.perf_counter() < end:
            status = await ask("127.0.0.1", port, pool, bodies[i % len(bodies)])
            done += status == 200
            i += CONNECTIONS

    await asyncio.gather(*(client(i) for i in range(CONNECTIONS)))
    for _, w in pool:
        w.close()
    return done / seconds


def closed(job):
    port, texts, seed, documents, seconds = job
    bodies = [data for _, data, _ in trace(100, 4, texts, seed, documents)]
    return asyncio.run(saturate(port, bodies, seconds))


def opened(job):
    port, texts, seed, documents, seconds, rate = job
    requests = trace(rate, seconds, texts, seed, documents)
    return asyncio.run(load("127.0.0.1", port, requests))[0]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", default="build/rerank")
    ap.add_argument("--model", default="models/mini")
    ap.add_argument("--documents", default="1,10", help="of a request, 200 characters each")
    ap.add_argument("--share", default="0.5,0.8", help="of the saturation rate")
    ap.add_argument("--seconds", type=float, default=6)
    ap.add_argument("--clients", type=int, default=6, help="processes")
    ap.add_argument("--port", type=int, default=18820)
    ap.add_argument("serve", nargs="*", help="flags of rerank serve, after --")
    a = ap.parse_args()
    texts = corpus()
    command = [a.binary, "serve", "-m", a.model, "--port", str(a.port), "--log", "off", *a.serve]
    print(" ".join(command[1:]))
    print("| documents | saturation req/s | share | req/s | p50 ms | p99 ms | p99 / p50 | not answered |\n"
          "|---|---|---|---|---|---|---|---|", flush=True)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as p, multiprocessing.Pool(a.clients) as pool:
        try:
            wait_up(f"http://127.0.0.1:{a.port}/ready", p)
            for documents in map(int, a.documents.split(",")):
                top = sum(pool.map(closed, [(a.port, texts, i, documents, a.seconds / 2) for i in range(a.clients)]))
                for share in map(float, a.share.split(",")):
                    jobs = [(a.port, texts, 100 + i, documents, a.seconds, share * top / a.clients)
                            for i in range(a.clients)]
                    late = [x for part in pool.map(opened, jobs) for x in part]
                    p50, p99 = percentile(late, 50) * 1e3, percentile(late, 99) * 1e3
                    print(f"| {documents} | {top:.0f} | {share:.0%} | {share * top:.0f} | {p50:.1f} | {p99:.1f} | "
                          f"{p99 / p50:.1f} | {sum(x is None for x in late)} |", flush=True)
        finally:
            p.terminate()


if __name__ == "__main__":
    main()

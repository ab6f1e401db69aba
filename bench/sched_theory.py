#!/usr/bin/env python3
"""How p99 / p50 of equal requests depends on load, order of service and number of devices, whatever the
scheduler: the bound that docs/SCHEDULING.md holds ours against.

    bench/sched_theory.py [--requests 400000]

Poisson arrivals, every request costs one unit of device time, requests / unit = load. Orders: first come first
served; evenly shared (processor sharing: pieces of all that wait, in turn); random; last come first
served. `c devices` serve one queue first come first served. `paced` arrivals come evenly, each up to one gap late."""
import argparse
import heapq
import random
from collections import deque


def arrivals(rng, n, rate, paced):
    t, out = 0.0, []
    for i in range(n):
        t += rng.expovariate(rate)
        out.append((i + rng.random()) / rate if paced else t)
    return sorted(out)


def fifo(at, devices):
    free, out = [0.0] * devices, []
    for t in at:
        end = max(t, heapq.heappop(free)) + 1
        heapq.heappush(free, end)
        out.append(end - t)
    return out


def shared(at):
    """Even sharing: with equal sizes the oldest is always the next to finish."""
    out, now, served, inside, i = [], 0.0, 0.0, deque(), 0  # served: work done on each of those inside
    while i < len(at) or inside:
        end = now + (inside[0][0] - served) * len(inside) if inside else float("inf")
        if i < len(at) and at[i] <= end:
            if inside:
                served += (at[i] - now) / len(inside)
            now = at[i]
            inside.append((served + 1, now))
            i += 1
        else:
            now = end
            served = inside[0][0]
            out.append(now - inside.popleft()[1])
    return out


def picked(at, rng, last):
    out, now, waiting, i = [], 0.0, [], 0
    while i < len(at) or waiting:
        if not waiting:
            now = max(now, at[i])
        while i < len(at) and at[i] <= now:
            waiting.append(at[i])
            i += 1
        if not last:
            k = rng.randrange(len(waiting))
            waiting[k], waiting[-1] = waiting[-1], waiting[k]
        t = waiting.pop()
        now += 1
        out.append(now - t)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--requests", type=int, default=400000)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    loads = [0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9]
    ways = {"first come first served": lambda at, rng: fifo(at, 1), "evenly shared": lambda at, rng: shared(at),
            "random": lambda at, rng: picked(at, rng, False), "last come first served": lambda at, rng: picked(at, rng, True),
            "paced, first come": lambda at, rng: fifo(at, 1)}
    for c in (2, 4, 8, 16):
        ways[f"{c} devices"] = lambda at, rng, c=c: fifo(at, c)
    print(f"{'p50 / p99 = ratio, in units':26}" + "".join(f"{x:>19}" for x in loads))
    for name, way in ways.items():
        row = ""
        for load in loads:
            rng = random.Random(a.seed)
            devices = int(name.split()[0]) if name.endswith("devices") else 1
            late = sorted(way(arrivals(rng, a.requests, load * devices, name.startswith("paced")), rng))
            p50, p99 = late[len(late) // 2], late[int(0.99 * len(late))]
            row += f"{p50:7.2f} {p99:5.1f} {p99 / p50:5.2f}"
        print(f"{name:26}{row}", flush=True)


if __name__ == "__main__":
    main()

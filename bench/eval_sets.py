#!/usr/bin/env python3
"""What lower precisions do to ranking on a backend: all evaluation sets, one row a precision.

    bench/eval_sets.py --backend cuda --compare fp16,fp8,int8 --queries 60 --candidates 50

Runs `rerank eval` over models/mini/eval/* once a precision, all at once, and compares each with --base. Changes of nDCG@10
are in points, the mean is over the sets. With --worst P the exit status is 1 if a mean falls by more than P points."""
import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ranking import contrast, rank, sets_of


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", default="build/rerank")
    ap.add_argument("--model", default="models/mini")
    ap.add_argument("--backend", default="cuda")
    ap.add_argument("--base", default="fp32")
    ap.add_argument("--compare", default="fp16,fp8,int8")
    ap.add_argument("--queries", default="60")
    ap.add_argument("--candidates", default="50")
    ap.add_argument("--worst", type=float, help="points that a mean may fall")
    a = ap.parse_args()
    sets = sets_of(a.model)
    if not sets:
        sys.exit(f"no sets in {a.model}/eval: run make first")
    print(f"{a.backend} beside {a.base}, {len(sets)} sets, {a.queries} queries of {a.candidates} candidates each")
    print("| precision | nDCG@10, mean change | least | most | best document changed | ten best changed | tau |\n"
          "|---|---|---|---|---|---|---|", flush=True)
    start, bad, compared = time.perf_counter(), False, a.compare.split(",")
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor() as pool:
        runs = {p: pool.submit(rank, a.binary, a.model, sets, a.queries, a.candidates, Path(work) / f"{p}.jsonl",
                               "--backend", a.backend, "--precision", p) for p in [a.base, *compared]}
        for precision in compared:
            found = contrast(runs[a.base].result(), runs[precision].result())
            change = [np.mean([q["ndcg10"] for q in found if q["set"] == s]) for s in sets]
            print(f"| {precision} | {np.mean(change):+.2f} | {min(change):+.2f} | {max(change):+.2f} | "
                  f"{sum(q['top1'] for q in found)} of {len(found)} | {sum(q['top10'] for q in found)} of {len(found)} | "
                  f"{np.mean([q['tau'] for q in found]):.3f} |", flush=True)
            bad |= a.worst is not None and np.mean(change) < -a.worst
    print(f"{time.perf_counter() - start:.0f} s, all precisions at once")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())

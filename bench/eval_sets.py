#!/usr/bin/env python3
"""What lower precisions do to ranking on a backend: all evaluation sets, one row a precision.

    bench/eval_sets.py --backend cuda --compare fp16,fp8,int8 --queries 60 --candidates 50

Runs `rerank eval --compare` over models/mini/eval/* for all precisions at once, each beside --base. Changes of nDCG@10 are in points,
the mean is over the sets. With --worst P the exit status is 1 if a mean falls by more than P points."""
import argparse
import glob
import json
import subprocess
import sys
import time


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
    sets = sorted(glob.glob("models/mini/eval/*/"))
    if not sets:
        sys.exit("no sets in models/mini/eval: run make first")
    print(f"{a.backend} beside {a.base}, {len(sets)} sets, {a.queries} queries of {a.candidates} candidates each")
    print("| precision | nDCG@10, mean change | least | most | best document changed | ten best changed | tau |\n"
          "|---|---|---|---|---|---|---|", flush=True)
    start, bad = time.perf_counter(), False
    running = [(p, subprocess.Popen([a.binary, "eval", "-m", a.model, "--backend", a.backend, "--precision", a.base, "--compare", p,
                                     "--queries", a.queries, "--candidates", a.candidates, "--json", *sets],
                                    stdout=subprocess.PIPE, text=True)) for p in a.compare.split(",")]
    for precision, p in running:
        out = p.communicate()[0]
        if p.returncode:
            bad = True
            continue
        found = json.loads(out)
        change = [100 * s["ndcg10_difference"][0] for s in found]
        asked, mean = sum(s["queries"] for s in found), sum(change) / len(change)
        tau = sum(s["kendall_tau"] for s in found) / len(found)
        print(f"| {precision} | {mean:+.2f} | {min(change):+.2f} | {max(change):+.2f} | "
              f"{sum(s['top1_flips'] for s in found)} of {asked} | {sum(s['top10_flips'] for s in found)} of {asked} | "
              f"{tau:.3f} |", flush=True)
        bad |= a.worst is not None and mean < -a.worst
    print(f"{time.perf_counter() - start:.0f} s, all precisions at once")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())

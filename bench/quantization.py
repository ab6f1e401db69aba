#!/usr/bin/env python3
"""quantization.py - what calibration does to ranking: methods x number of pairs x language, against fp32.

    python bench/quantization.py --backend cuda --queries 100 --candidates 50 --jobs 8

Calibrates with pairs of queries that are not evaluated, then runs `rerank eval` for fp32 and for every precision and
calibration on one backend. What each run found is kept in --work and not measured again, so a run that was cut off goes
on. Prints the tables of docs/QUANTIZATION.md in Markdown and, with --plot, writes docs/img/quantization.svg. Intervals
are 95 % by bootstrap over the queries of all sets. Tau sees every swap: look at it first, at nDCG with its interval
second."""
import argparse
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ranking import ROOT, contrast, interval, jsonl, rank, run, sets_of

SIZES = [16, 64, 256, 1024]
METHODS = ["max", "percentile", "entropy", "mse"]
SMOOTHED = [("max", 0.5), ("max", 0.7), ("mse", 0.5), ("mse", 0.7)]


@dataclass(frozen=True)
class Variant:
    precision: str
    label: str = ""
    method: str = ""  # of a calibration that is made for it; else `calibration`, if any, is passed on
    pairs: int = 0
    smooth: float = 0
    calibration: str = ""

    @property
    def key(self):
        made = f"-{self.method}-{self.pairs}-{self.smooth}" if self.method else ""
        return self.precision + made + ("-none" if self.calibration else "")

    @property
    def name(self):
        if not self.method:
            return self.label or self.precision
        smoothed = f", smoothing {self.smooth}" if self.smooth else ""
        return f"{self.precision}: {self.method}, {self.pairs} pairs{smoothed}"


def variants(backend):
    own = "a scale a row" + (", 8-bit products chosen by the model's file" if backend == "cpu" else "")
    out = [Variant("bf16")]
    if backend == "cuda":
        out = [Variant("fp16"), Variant("bf16"), Variant("fp8", "fp8, a scale a row"),
               *(Variant("fp8", method=m, pairs=256) for m in ("max", "mse"))]
    out += [Variant("int8", "int8, a scale a row, no file", calibration="none"), Variant("int8", f"int8, {own}, the model's file")]
    out += [Variant("int8", method=m, pairs=256, smooth=a) for m, a in SMOOTHED]
    return out + [Variant("int8", method=m, pairs=n) for m in METHODS for n in SIZES]


def write_pairs(model, skip, path):
    """1,024 pairs of query and passage, half of them relevant, over all sets; the first `skip` queries left out."""
    rng, pairs, sets = random.Random(7), [], []
    for name in sets_of(model):
        folder = model / "eval" / name
        docs = {d["_id"]: d["text"] for d in jsonl(folder / "corpus.jsonl")}
        queries = {q["_id"]: q["text"] for q in jsonl(folder / "queries.jsonl")[skip:]}
        rows = [line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()]
        sets.append((docs, queries, [r for r in rows if r[0] in queries]))
    for i in range(max(SIZES)):
        docs, queries, judged = sets[i % len(sets)]
        query, doc = rng.choice(judged)
        pairs.append({"query": queries[query], "document": docs[doc if i // len(sets) % 2 else rng.choice(sorted(docs))]})
    path.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in pairs), encoding="utf-8")


def measure(args, v):
    """The run of one variant, calibrated first if need be."""
    scales = args.work / f"{v.key}.cal.json"
    start = time.time()
    if v.method and not scales.exists():
        part = scales.with_suffix(".part")
        run(args.rerank, "calibrate", "-m", args.model, "--backend", args.backend, "--pairs", args.work / "pairs.jsonl", "-n", v.pairs,
            "--method", v.method, "--smooth", v.smooth, "--format", v.precision, "-o", part)
        part.rename(scales)
    calibrated = time.time()
    flags = ["--calibration", scales if v.method else v.calibration] if v.method or v.calibration else []
    lines = rank(args.rerank, args.model, args.sets, args.queries, args.candidates, args.work / f"{v.key}.jsonl",
                 "--backend", args.backend, "--precision", v.precision, *flags)
    print(f"{v.name}: {calibrated - start:.0f} s to calibrate, {time.time() - calibrated:.0f} s to rank", file=sys.stderr, flush=True)
    return lines


def column(queries, key):
    return [q[key] for q in queries]


def spread(x, digits):
    mean, low, high = interval(x)
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def table(rows):
    rows = [[str(c) for c in r] for r in rows]
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for r in rows[1:]:
        print("| " + " | ".join(r) + " |")
    print(flush=True)


def of_all(results):
    head = ["", "nDCG@10", "MRR@10", "tau", "best changed", "ten best changed"]
    rows = []
    for v, queries in results.items():
        tau, low, high = interval(column(queries, "tau"))
        rows.append([v.name, spread(column(queries, "ndcg10"), 2), spread(column(queries, "mrr10"), 2),
                     f"{tau:.3f} [{low:.3f}, {high:.3f}]", *(f"{100 * np.mean(column(queries, k)):.1f} %" for k in ("top1", "top10"))])
    table([head, *rows])


def by_set(results, sets):
    """What every variant does to each set: change of nDCG@10, tau."""
    rows = [["", *sets]]
    for v, queries in results.items():
        here = [[q for q in queries if q["set"] == s] for s in sets]
        rows.append([v.name, *(f"{np.mean(column(q, 'ndcg10')):+.1f}, {np.mean(column(q, 'tau')):.2f}" for q in here)])
    table(rows)


def best_by_set(results, sets):
    """Of every precision, and of the best calibration of each kind, the same with intervals."""
    best = {}
    for v, queries in results.items():
        kind = (v.precision, bool(v.method), bool(v.smooth)) if v.method else v
        tau = np.mean(column(queries, "tau"))
        if kind not in best or tau > best[kind][0]:
            best[kind] = tau, v
    chosen = [v for _, v in best.values()]
    rows = [["", *(v.name for v in chosen)]]
    for s in sets:
        cells = []
        for v in chosen:
            queries = [q for q in results[v] if q["set"] == s]
            cells.append(f"{spread(column(queries, 'ndcg10'), 1)}, {np.mean(column(queries, 'tau')):.3f}")
        rows.append([s, *cells])
    table(rows)


def plot(results, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    matplotlib.rcParams.update({"svg.hashsalt": "rerank", "svg.fonttype": "none", "font.size": 9, "axes.grid": True,
                                "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.4), sharex=True)
    for ax, key, label in zip(axes, ("tau", "ndcg10"), ("Kendall's tau to the order of fp32", "change of nDCG@10, points")):
        for method in METHODS:
            at = [(v.pairs, *interval(column(q, key))) for v, q in results.items()
                  if v.precision == "int8" and v.method == method and not v.smooth]
            n, mean, low, high = zip(*sorted(at))
            ax.plot(n, mean, marker="o", label=f"int8, {method}")
            ax.fill_between(n, low, high, alpha=0.15)
        level = [v for v in results if not v.method or v.smooth == 0.7]
        for v, style in zip(level, (":", (0, (1, 3)), "--", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (8, 3)))):
            ax.axhline(np.mean(column(results[v], key)), color="#444444", linestyle=style, linewidth=1, label=v.name)
        ax.set_xscale("log", base=2)
        ax.set_xticks(SIZES, [str(n) for n in SIZES])
        ax.set_xlabel("calibration pairs")
        ax.set_ylabel(label)
    axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rerank", type=Path, default=ROOT / "build/rerank")
    ap.add_argument("--model", type=Path, default=ROOT / "models/mini")
    ap.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    ap.add_argument("--sets", type=lambda s: s.split(","), help="default: all of the model's eval folder")
    ap.add_argument("--queries", type=int, default=16)
    ap.add_argument("--candidates", type=int, default=16)
    ap.add_argument("--jobs", type=int, default=1, help="variants at once")
    ap.add_argument("--work", type=Path, default=ROOT / "build/quantization", help="where results are kept")
    ap.add_argument("--plot", action="store_true")
    ap.add_argument("--pairs-only", type=Path, metavar="FILE", help="write the calibration pairs there and stop")
    args = ap.parse_args()
    if args.pairs_only:
        return write_pairs(args.model, args.queries, args.pairs_only)
    args.sets = args.sets or sets_of(args.model)
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "pairs.jsonl").exists():
        write_pairs(args.model, args.queries, args.work / "pairs.jsonl")
    fp32, todo = Variant("fp32"), variants(args.backend)
    with ThreadPoolExecutor(args.jobs) as pool:  # those that take longest first
        done = {v: pool.submit(measure, args, v) for v in [fp32, *sorted(todo, key=lambda v: -v.pairs)]}
    results = {v: contrast(done[fp32].result(), done[v].result()) for v in todo}
    print(f"{args.backend}, {len(args.sets)} sets, {args.queries} queries of {args.candidates} candidates each, beside fp32\n")
    of_all(results)
    best_by_set(results, args.sets)
    by_set(results, args.sets)
    if args.plot:
        plot(results, ROOT / "docs/img/quantization.svg")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""quantization.py - what calibration does to ranking: methods x number of pairs x language, against fp32.

    python bench/quantization.py [--rerank build/rerank] [--model DIR] [--sets A,B] [--queries 16] [--candidates 16]

Calibrates with pairs of queries that are not evaluated, then runs `rerank eval --compare int8` for every
calibration, without one (int8 by each row's own scale) and in bf16, all on the cpu backend. Prints
the tables of docs/QUANTIZATION.md in Markdown and writes docs/img/quantization.svg. The order of candidates
matters to nobody but a rank metric: look at Kendall's tau first, at nDCG with its interval second."""
import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = [16, 64, 256, 1024]
METHODS = ["max", "percentile", "entropy", "mse"]
SMOOTHED = [("max", 0.7), ("mse", 0.5), ("mse", 0.7)]


def jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_pairs(model, skip, path):
    """1,024 pairs of query and passage, half of them relevant, over all sets; the first `skip` queries left out."""
    rng, pairs, sets = random.Random(7), [], []
    for folder in sorted(p for p in (model / "eval").iterdir() if (p / "corpus.jsonl").exists()):
        docs = {d["_id"]: d["text"] for d in jsonl(folder / "corpus.jsonl")}
        queries = {q["_id"]: q["text"] for q in jsonl(folder / "queries.jsonl")[skip:]}
        rows = [line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()]
        sets.append((docs, queries, [r for r in rows if r[0] in queries]))
    for i in range(max(SIZES)):
        docs, queries, judged = sets[i % len(sets)]
        query, doc = rng.choice(judged)
        pairs.append({"query": queries[query], "document": docs[doc if i // len(sets) % 2 else rng.choice(sorted(docs))]})
    path.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in pairs), encoding="utf-8")


def evaluate(args, precision, *flags):
    out = subprocess.run([args.rerank, "eval", "-m", args.model, *(args.model / "eval" / s for s in args.sets), "--queries",
                          str(args.queries), "--candidates", str(args.candidates), "--backend", "cpu", "--precision", "fp32",
                          "--compare", precision, "--json", *flags], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def cells(sets, precision):
    """Of one run: the change of nDCG@10 in points with its interval and tau by set, then what is summed over sets."""
    out = []
    for s in sets:
        mean, low, high = (100 * x for x in s["ndcg10_difference"])
        out.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}], {s['kendall_tau']:.3f}")
    mrr = sum(s[f"cpu:{precision}"]["mrr10"] - s["cpu:fp32"]["mrr10"] for s in sets) / len(sets)
    queries = sum(s["queries"] for s in sets)
    out.append(f"{100 * mrr:+.1f}")
    out.append(f"{sum(s['top1_flips'] for s in sets)} / {sum(s['top10_flips'] for s in sets)} of {queries}")
    return out


def tau(sets):
    return sum(s["kendall_tau"] for s in sets) / len(sets)


def plot(curves, lines, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    matplotlib.rcParams.update({"svg.hashsalt": "rerank", "svg.fonttype": "none", "font.size": 9, "axes.grid": True,
                                "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
    fig, ax = plt.subplots(figsize=(6.6, 3.2))
    for method, points in curves.items():
        ax.plot([n for n, _ in points], [t for _, t in points], marker="o", label=method)
    for name, (value, style) in lines.items():
        ax.axhline(value, color="#444444", linestyle=style, linewidth=1, label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(SIZES, [str(n) for n in SIZES])
    ax.set_xlabel("calibration pairs")
    ax.set_ylabel("Kendall's tau to the order of fp32")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--rerank", default=ROOT / "build/rerank")
    ap.add_argument("--model", type=Path, default=ROOT / "models/mini")
    ap.add_argument("--sets", type=lambda s: s.split(","), default=["xquad-en", "xquad-es", "drcd-dev", "jaquad-dev"])
    ap.add_argument("--queries", type=int, default=16)
    ap.add_argument("--candidates", type=int, default=16)
    ap.add_argument("--pairs-only", type=Path, metavar="FILE", help="write the calibration pairs there and stop")
    args = ap.parse_args()
    if args.pairs_only:
        return write_pairs(args.model, args.queries, args.pairs_only)
    work = ROOT / "build/quantization"
    work.mkdir(parents=True, exist_ok=True)
    write_pairs(args.model, args.queries, work / "pairs.jsonl")
    head = ["", *(f"{s}: nDCG@10, tau" for s in args.sets), "MRR@10", "top 1 / top 10 changed"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)

    def row(name, sets, precision):
        print("| " + " | ".join([name, *cells(sets, precision)]) + " |", flush=True)

    def calibrated(method, pairs, smooth):
        start, path = time.time(), work / f"{method}-{pairs}-{smooth}.json"
        subprocess.run([args.rerank, "calibrate", "-m", args.model, "--backend", "cpu", "--pairs", work / "pairs.jsonl",
                        "-n", str(pairs), "--method", method, "--smooth", str(smooth), "-o", path], check=True, capture_output=True)
        sets = evaluate(args, "int8", "--calibration", path)
        row(f"{method}, {pairs} pairs" + (f", smoothing {smooth}" if smooth else ""), sets, "int8")
        print(f"{method} {pairs} {smooth}: {time.time() - start:.0f} s", file=sys.stderr)
        return tau(sets)

    lines = {}
    for name, precision, style, flags in (("bf16", "bf16", ":", ()),
                                          ("int8, scale a row", "int8", "--", ("--calibration", "none")),
                                          ("int8, scale a row, the model's calibration", "int8", (0, (1, 3)), ())):
        sets = evaluate(args, precision, *flags)
        row(name, sets, precision)
        lines[name] = (tau(sets), style)
    smoothed = {(m, a): calibrated(m, 256, a) for m, a in SMOOTHED}
    lines["max, smoothing 0.7"] = (smoothed["max", 0.7], "-.")
    curves = {m: [(n, calibrated(m, n, 0)) for n in SIZES] for m in METHODS}
    plot(curves, lines, ROOT / "docs/img/quantization.svg")


if __name__ == "__main__":
    main()

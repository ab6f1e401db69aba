"""ranking.py - `rerank eval` over the embedded model's sets, once a precision, and what differs between two runs."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def jsonl(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def sets_of(model):
    """The names of its evaluation sets."""
    return sorted(p.name for p in (Path(model) / "eval").iterdir() if (p / "corpus.jsonl").exists())


def run(*command):
    p = subprocess.run([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if p.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{p.stderr}")


def rank(rerank, model, sets, queries, candidates, to, *flags):
    """One line a query, with every candidate's score, read from `to` if that is there."""
    to = Path(to)
    if not to.exists():
        part = to.with_suffix(".part")
        run(rerank, "eval", "-m", model, *(Path(model) / "eval" / s for s in sets), "--queries", queries, "--candidates", candidates,
            "--top", candidates, "--per-query", part, *flags)
        part.rename(to)
    return jsonl(to)


def kendall(a, b):
    """Tau-b of two rows of scores."""
    above = np.triu_indices(len(a), 1)
    x, y = (np.sign(s[:, None] - s[None, :])[above] for s in (np.asarray(a), np.asarray(b)))
    pairs = np.count_nonzero(x) * np.count_nonzero(y)
    return float((x * y).sum() / np.sqrt(pairs)) if pairs else 1.0


def contrast(base, other):
    """Of two runs' lines, query by query: changes of nDCG@10 and MRR@10 in points, tau, and whether the best document, and the
    set of ten best, differ."""
    out = []
    for a, b in zip(base, other, strict=True):
        assert (a["set"], a["query"]) == (b["set"], b["query"])
        first, second = ([d["id"] for d in q["top"]] for q in (a, b))
        score = {d["id"]: d["score"] for d in b["top"]}
        out.append({"set": a["set"], "ndcg10": 100 * (b["ndcg10"] - a["ndcg10"]), "mrr10": 100 * (b["mrr10"] - a["mrr10"]),
                    "tau": kendall([d["score"] for d in a["top"]], [score[i] for i in first]),
                    "top1": first[0] != second[0], "top10": set(first[:10]) != set(second[:10])})
    return out


def interval(x, seed=1, rounds=2000):
    """Mean of x and its 95 % interval by bootstrap."""
    x = np.asarray(x, float)
    means = x[np.random.default_rng(seed).integers(0, len(x), (rounds, len(x)))].mean(axis=1)
    return x.mean(), *np.percentile(means, [2.5, 97.5])

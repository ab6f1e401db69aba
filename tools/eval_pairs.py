"""eval_pairs.py - the (query, passage) pairs behind the truth files; tools/oracle.py and tests call it."""
import json
from pathlib import Path

EVAL = Path(__file__).resolve().parent.parent / "models/mini/eval"


def read_jsonl(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def eval_pairs(n, rng):
    """n (query, passage) pairs round robin over the evaluation sets, half of them relevant."""
    sets = []
    for folder in sorted(p for p in EVAL.iterdir() if (p / "corpus.jsonl").exists()):
        corpus = {d["_id"]: d["text"] for d in read_jsonl(folder / "corpus.jsonl")}
        queries = {q["_id"]: q["text"] for q in read_jsonl(folder / "queries.jsonl")}
        lines = (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()
        qrels = [line.split("\t")[:2] for line in lines if line.split("\t")[0] in queries]
        sets.append((corpus, queries, qrels))
    pairs = []
    for i in range(n):
        corpus, queries, qrels = sets[i % len(sets)]
        qid, did = rng.choice(qrels)
        if i // len(sets) % 2:
            did = rng.choice(sorted(corpus))
        pairs.append((queries[qid], corpus[did]))
    return pairs

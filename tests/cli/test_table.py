"""`rerank bench --table`: rows of all that runs, reasons for what does not, and rows of other engines."""
import json
import os
import subprocess
import xml.etree.ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RERANK = str(ROOT / os.environ.get("BUILD", "build") / "rerank")
SET = ROOT / "models/mini/eval/xquad-en"
WORK = ("bench", "--table", "--docs", "5", "--repeat", "2", "--warmup", "0", "--eval", SET, "--queries", "2", "--candidates", "5")


def run(*args, code=0):
    p = subprocess.run([RERANK, *map(str, args)], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert p.returncode == code, p.stderr
    return p.stdout if code == 0 else p.stderr


def peers(tmp_path, rows):
    path = tmp_path / "peers.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """The work file, and fp32 logits of its judged pairs as `rerank score` gives them."""
    path = tmp_path_factory.mktemp("work") / "work.json"
    assert run(*WORK, "--work", path) == ""
    work = json.loads(path.read_text())
    docs = {d["_id"]: d for d in map(json.loads, (SET / "corpus.jsonl").read_text().splitlines())}
    wanted = [line.split("\t")[:2] for line in (SET / "candidates.tsv").read_text().splitlines()]
    texts = {q["_id"]: q["text"] for q in map(json.loads, (SET / "queries.jsonl").read_text().splitlines())}
    pairs, seen = [], {}
    for q, d in wanted:
        if q in texts and len(seen) < 2 or q in seen:
            seen[q] = seen.get(q, 0) + 1
            if seen[q] <= 5:
                pairs.append({"query": texts[q], "document": docs[d]["text"]})
    (path.parent / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    out = run("score", "--backend", "cpu", "--precision", "fp32", "--raw", "--pairs", path.parent / "pairs.jsonl")
    return work, [json.loads(line)["score"] for line in out.splitlines()]


def test_rows_and_reasons(tmp_path, exact):
    work, logits = exact
    assert len(work["request"]) == 5 and len(work["judged"]) == len(logits) == 10
    theirs = [{"engine": "Engine <&> X", "precision": "fp32", "device": "here", "batch": 4, "ms": [3, 1, 2], "logits": logits},
              {"engine": "Upside down", "precision": "fp32", "ms": [1e6], "logits": [-x for x in logits]},
              {"engine": "Absent", "precision": "fp16", "why": "no card"}]
    svg = tmp_path / "t.svg"
    out = json.loads(run(*WORK, "--json", "--with", peers(tmp_path, theirs), "--svg", svg))
    rows = {(r["engine"], r["precision"]): r for r in out["rows"]}
    ours = [r for k, r in rows.items() if k[0] == "rerank.c cpu"]
    assert {r["precision"] for r in ours} == {"fp32", "bf16", "int8"} and all(r["mean_ms"] > 0 for r in ours)
    assert "logit_error" not in rows["rerank.c cpu", "fp32"] and 0 < rows["rerank.c cpu", "int8"]["logit_error"] < 0.3
    assert out["version"] and rows["TensorRT", "fp16"]["why"] and rows["TensorRT", "int8"]["why"]
    assert rows["Absent", "fp16"] == {"engine": "Absent", "precision": "fp16", "why": "no card"}
    good, bad = rows["Engine <&> X", "fp32"], rows["Upside down", "fp32"]
    assert (good["p50_ms"], good["p99_ms"], good["mean_ms"], good["pairs_per_s"]) == (2, 3, 2, 2500)
    assert good["logit_error"] < 1e-3 and good["ndcg10"] == rows["rerank.c cpu", "fp32"]["ndcg10"] > bad["ndcg10"]
    assert bad["speed_up"] == 1 and good["speed_up"] == 5e5 and bad["logit_error"] > 1
    tree = xml.etree.ElementTree.parse(svg)
    assert sum(e.tag.endswith("rect") for e in tree.iter()) == len([r for r in out["rows"] if "why" not in r])


def test_text_and_markdown(tmp_path):
    text = run(*WORK)
    assert "rerank.c cpu" in text and "PyTorch" in text and "not measured" in text and "speed-up" in text
    lines = [line for line in run(*WORK, "--markdown").splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and lines[1].startswith("|---")
    assert "--table" in run("bench", "--markdown", code=2)


def test_an_engine_that_is_not_right_is_a_row_that_says_why(tmp_path):
    out = json.loads(run("bench", "--table", "--docs", "2", "--repeat", "1", "--warmup", "0", "-m", ROOT / "tests/data/tiny-xlmr", "--json",
                         "--engine", tmp_path / "a.plan", "--engine", tmp_path / "b.plan", "--backend", "trt"))
    why = [(r["precision"], r["why"]) for r in out["rows"] if r["engine"] == "TensorRT"]
    assert len(why) == 4 and "a.plan.json: No such file" in why[0][1] and "b.plan.json" in why[1][1]
    assert [p for p, _ in why[2:]] == ["fp16", "int8"] and all(w for _, w in why)
    assert "several are for --table" in run("bench", "--engine", "a", "--engine", "b", code=2)


@pytest.mark.parametrize("rows,says", [
    ("{", "peers.json"), ("[{}]", "needs engine"), ('[{"engine": "x", "ms": []}]', "ms or why"),
    ('[{"engine": "x", "ms": [1], "logits": [1, 2]}]', "--work"), ('[{"engine": "x", "ms": [null]}]', "peers.json"),
    ('[{"engine": "x", "ms": [0]}]', "1e9 ms"), ('[{"engine": "x", "ms": [1, -5]}]', "1e9 ms"), ('[{"engine": "x", "ms": [1e308]}]', "1e9 ms"),
    ('[{"engine": "x", "ms": [1], "batch": -1}]', "negative"),
    ('[{"engine": "x", "ms": [1], "logits": [' + ",".join("1" * 99) + "]}]", "too many"),
    ("[" + ",".join(['{"engine": "x", "why": "y"}'] * 300) + "]", "too many rows")])
def test_a_hostile_file_is_refused(tmp_path, rows, says):
    assert says in run(*WORK, "-m", ROOT / "tests/data/tiny-xlmr", "--with", peers(tmp_path, rows), code=1)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a|b", "a\nb", "a\ufffeb", "\u00e9" * 99])
def test_hostile_names_stay_text(tmp_path, name):
    """No escape sequence, torn row or broken XML, whatever an engine calls itself."""
    svg = tmp_path / "t.svg"
    rows = [{"engine": name, "device": name, "ms": [1]}, {"engine": name, "precision": name, "why": name}]
    out = run("bench", "--table", "--docs", "2", "--repeat", "1", "--warmup", "0", "-m", ROOT / "tests/data/tiny-xlmr", "--markdown",
              "--with", peers(tmp_path, rows), "--svg", svg)
    assert all(c == "\n" or " " <= c <= "~" for c in out)
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and ("| a?" in out or "| ????" in out)
    xml.etree.ElementTree.parse(svg)


def test_the_script_measures_onnx_runtime(tmp_path, exact):
    """Real peers where this Python has them; the table then agrees with them."""
    pytest.importorskip("onnxruntime")
    work = tmp_path / "work.json"
    work.write_text(json.dumps({**exact[0], "request": exact[0]["request"][:2]}))
    out = tmp_path / "out.json"
    done = subprocess.run([os.sys.executable, ROOT / "bench/peers.py", work, "-o", out, "--rerank", RERANK, "--only", "ONNX Runtime"],
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = json.loads(run(*WORK, "--json", "--with", out))["rows"]
    ort = [r for r in rows if r["engine"].startswith("ONNX Runtime ")]
    assert len(ort) == 1 and ort[0]["logit_error"] < 1e-3 and ort[0]["p50_ms"] > 0

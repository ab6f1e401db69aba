"""Flags, the same on every command: what they choose, what they refuse, and where files come from."""
import json
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RERANK = os.path.join(ROOT, os.environ.get("BUILD", "build"), "rerank")
TINY = os.path.join(ROOT, "tests/data/tiny-xlmr")  # three layers of 64, at most 128 tokens


def rerank(*args, data=b"", model=TINY, code=0, **kw):
    """Run; text arguments may hold any bytes. Returns (stdout, stderr) as bytes."""
    if isinstance(data, str):
        data = data.encode()
    command = [RERANK, args[0]] + (["-m", model] if model else []) + list(args[1:])
    p = subprocess.run(command, input=data, capture_output=True, timeout=120, cwd=ROOT, **kw)
    assert p.returncode == code, p.stderr.decode(errors="replace")
    return p.stdout, p.stderr.decode(errors="replace")


def lines(out):
    return [json.loads(x) for x in out.splitlines()]


def pair(query, document):
    return json.dumps({"query": query, "document": document}, ensure_ascii=False) + "\n"


def results(*args, **kw):
    return lines(rerank("score", "--jsonl", *args, **kw)[0])


def test_several_files(tmp_path):
    (tmp_path / "a").write_text("one\ntwo\n")
    (tmp_path / "b").write_text("three\n")
    r = results("-q", "q", "-f", str(tmp_path / "a"), "-f", str(tmp_path / "b"))
    assert {x["index"]: x["text"] for x in r} == {0: "one", 1: "two", 2: "three"}


def test_the_embedded_model_is_the_default_and_ranks_three_languages():
    docs = ["El Sena es un río.", "巴黎是法国的首都。", "Paris is the capital of France."]
    r = lines(rerank("score", "--jsonl", "-q", "capital of France", *docs, model=None)[0])
    assert r[2]["index"] == 0 and r[0]["score"] > 0.9 and r[2]["score"] < 0.5
    env = dict(os.environ, RERANK_MODEL=TINY)
    assert lines(rerank("score", "--jsonl", "-q", "capital of France", *docs, model=None, env=env)[0]) == \
        results("-q", "capital of France", *docs)


def test_tokenize_agrees_with_score_and_needs_no_weights(tmp_path):
    os.symlink(os.path.join(TINY, "tokenizer.json"), tmp_path / "tokenizer.json")
    data = pair("capital of France", "Paris") + pair("q", "word " * 300)
    ids = lines(rerank("tokenize", "--pairs", "-", "--max-length", "128", data=data, model=str(tmp_path))[0])
    scores = lines(rerank("score", "--pairs", "-", "--max-length", "128", data=data)[0])
    for i, s in zip(ids, scores):
        assert len(i["ids"]) == i["kept"]
        assert {k: i[k] for k in ("tokens", "kept", "truncated")} == {k: s[k] for k in ("tokens", "kept", "truncated")}
    assert ids[1]["kept"] == 128 and ids[1]["truncated"] is True and ids[0]["truncated"] is False
    one = json.loads(rerank("tokenize", "--json", "Paris is", model=str(tmp_path))[0])
    assert one["ids"][0] == 0 and one["pieces"][0] == "<s>" and len(one["ids"]) == len(one["pieces"])


def test_truncation_flags_mean_the_same_everywhere():
    data = pair("word " * 100, "text " * 300)
    flags = ["--max-length", "64", "--truncation", "longest_first", "--truncation-side", "left"]
    left = lines(rerank("tokenize", "--pairs", "-", *flags, data=data)[0])[0]
    right = lines(rerank("tokenize", "--pairs", "-", *flags[:4], data=data)[0])[0]
    assert left["kept"] == right["kept"] == 64 and left["ids"] != right["ids"]
    _, err = rerank("score", "--pairs", "-", "--max-length", "64", "--truncation", "error", data=data, code=1)
    assert "lines 1 to 1" in err


def test_info_gives_a_reason_for_every_backend_that_cannot_run():
    info = json.loads(rerank("info", "--json")[0])
    assert info["backends"]["ref"] is True and info["model"]["layers"] == 3
    for name, state in info["backends"].items():
        assert state is True or len(state) > 10, name
    assert b"machine" in rerank("info")[0]


def test_bench_lengths_come_from_a_file_or_a_seed(tmp_path):
    (tmp_path / "lengths").write_text("10\n20\n")
    b = json.loads(rerank("bench", "--json", "--repeat", "2", "--lengths", str(tmp_path / "lengths"),
                          "--precision", "fp32")[0])
    assert b[0]["docs"] == 2 and b[0]["tokens"] == 30 and b[0]["p50_ms"] <= b[0]["p99_ms"]
    drawn = [json.loads(rerank("bench", "--json", "--repeat", "1", "--docs", "5", "--mean", "40", "--seed", s,
                               "--precision", "fp32")[0])[0]["tokens"] for s in "112"]
    assert drawn[0] == drawn[1] != drawn[2]
    (tmp_path / "lengths").write_text("10\nten\n")
    assert "line 2" in rerank("bench", "--lengths", str(tmp_path / "lengths"), code=1)[1]


@pytest.mark.parametrize("args, says", [
    (["score", "--qery", "x"], "did you mean --query?"),
    (["score", "-q", "x", "--top-n", "many"], "whole number"),
    (["score", "-q", "x", "--precision", "int4", "d"], "did you mean int8?"),
    (["score", "-q", "x", "--truncation", "longest", "d"], "did you mean longest_first?"),
    (["score", "-q", "x", "--truncation-side", "up", "d"], "right|left"),
    (["score", "-q", "x", "--backend", "gpu", "d"], "did you mean cpu?"),
    (["score", "d"], "-q QUERY is needed"),
    (["score", "--pairs", "f", "-q", "x"], "--pairs takes no query"),
    (["score", "-q"], "needs a value"),
    (["score", "--json=1", "-q", "x"], "takes no value"),
    (["tokenize"], "either texts or --pairs"),
    (["eval"], "at least one DIR"),
    (["bench", "--precision", "fp32,int9"], "did you mean int8?"),
    (["info", "x"], 'unexpected "x"'),
    (["scor"], 'no command "scor"'),
])
def test_wrong_usage_exits_2_and_says_what_is_right(args, says):
    assert says in rerank(*args, model=None, code=2)[1]


@pytest.mark.parametrize("command", ["score", "tokenize", "info", "bench", "eval", "calibrate", "compare"])
def test_help_lists_the_common_flags(command):
    out = rerank(command, "--help", model=None)[0].decode()
    for flag in ("--model", "--precision", "--backend", "--threads", "--max-length", "--truncation",
                 "--truncation-side", "--max-batch-tokens", "--devices"):
        assert flag in out


def shell(line):
    p = subprocess.run(["bash", "-c", line], capture_output=True, env=dict(os.environ, R=RERANK, M=TINY), timeout=60)
    return p.returncode, p.stdout, p.stderr.decode()


def test_closed_standard_input():
    code, _, err = shell('"$R" score -m "$M" --pairs - <&-')
    assert code == 1 and "standard input" in err


def test_the_manual_page_has_every_command():
    page = subprocess.run([os.path.join(ROOT, "tools/man.sh"), RERANK], capture_output=True, check=True).stdout.decode()
    commands = [x.split()[0] for x in rerank("--help", model=None)[0].decode().splitlines() if x.startswith("  ")]
    assert {"score", "eval", "info"} <= set(commands)
    for c in commands:
        assert f".SH RERANK {c.upper()}\n.nf\nusage: rerank {c} " in page

"""`rerank calibrate` with a plan: per-token scales, what is kept in float, and the model folder's own file."""
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RERANK = str(ROOT / os.environ.get("BUILD", "build") / "rerank")
TINY = ROOT / "tests/data/tiny-xlmr"
SETS = ROOT / "models/mini/eval"
PAIRS = [{"query": q, "document": d} for q in ("capital of France", "法国的首都", "rivers")
         for d in ("Paris is the capital of France.", "巴黎是法国的首都。", "The Seine is a river.", "word " * 40)]


def run(*args, code=0):
    p = subprocess.run([RERANK, *map(str, args)], capture_output=True, text=True, timeout=120)
    assert p.returncode == code, p.stderr
    return p.stdout if code == 0 else p.stderr


def calibrate(tmp_path, *flags, model=TINY, name="cal.json"):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PAIRS))
    out = run("calibrate", "-m", model, "--backend", "cpu", "--pairs", tmp_path / "pairs.jsonl", "-o", tmp_path / name, *flags)
    return json.loads((tmp_path / name).read_text()), out


def logits(tmp_path, *flags, model=TINY):
    out = run("score", "-m", model, "--backend", "cpu", "--raw", "--pairs", tmp_path / "pairs.jsonl", *flags)
    return [json.loads(line)["score"] for line in out.splitlines()]


def error(tmp_path, *flags, model=TINY):
    exact = logits(tmp_path, "--precision", "fp32", model=model)
    return max(abs(a - b) for a, b in zip(logits(tmp_path, "--precision", "int8", *flags, model=model), exact))


def test_keeping_more_in_float_errs_less(tmp_path):
    flags = ("--per-token", "--smooth", "0.5", "--method", "max")
    none, _ = calibrate(tmp_path, *flags, name="none.json")
    some, out = calibrate(tmp_path, *flags, "--keep", "6", name="some.json")
    every, _ = calibrate(tmp_path, *flags, "--keep", "12", name="every.json")
    assert none["per_token"] is True and all(p["sensitivity"] == -1 for p in none["products"])
    kept = {p["name"]: p["sensitivity"] for p in some["products"] if p["keep_float"]}
    assert len(kept) == 6 == out.count("kept in float") and sum(p["keep_float"] for p in every["products"]) == 12
    assert min(kept.values()) > 0 and max(p["sensitivity"] for p in some["products"]) in kept.values()
    e = [error(tmp_path, "--calibration", tmp_path / f"{n}.json") for n in ("none", "some", "every")]
    assert e[2] < e[1] < e[0] < 1, e


def test_a_calibrated_score_has_the_same_bits_alone(tmp_path):
    calibrate(tmp_path, "--per-token", "--smooth", "0.5", "--keep", "3")
    flags = ("--precision", "int8", "--calibration", tmp_path / "cal.json")
    together = logits(tmp_path, *flags)
    lines = (tmp_path / "pairs.jsonl").read_text().splitlines(True)
    for i, line in enumerate(lines):
        (tmp_path / "pairs.jsonl").write_text(line)
        assert struct.pack("f", logits(tmp_path, *flags)[0]) == struct.pack("f", together[i])


def test_the_folder_s_own_calibration_is_the_default(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    calibrate(tmp_path, "--method", "max", "--smooth", "0.5", "--per-token")
    plain = logits(tmp_path, "--precision", "int8", model=model)
    shutil.copy(tmp_path / "cal.json", model / "calibration.int8.json")
    own = logits(tmp_path, "--precision", "int8", model=model)
    assert own != plain
    assert own == logits(tmp_path, "--precision", "int8", "--calibration", tmp_path / "cal.json")
    assert plain == logits(tmp_path, "--precision", "int8", "--calibration", "none", model=model)
    exact = logits(tmp_path, "--precision", "fp32", model=model)  # others take no notice of it
    assert exact == logits(tmp_path, "--precision", "fp32")
    (model / "calibration.int8.json").write_text("{")
    assert "calibration.int8.json" in run("score", "-m", model, "--backend", "cpu", "--precision", "int8", "-q", "a", "b", code=1)


def test_a_budget_is_held_by_the_file_it_leaves(tmp_path):
    sets = [SETS / "xquad-en", SETS / "xquad-zh"]
    few = ("--queries", 3, "--candidates", 10)
    budget = ("--per-token", "--measured", "2", "--max-ndcg-drop", "0.5", *few, *sets)
    cal, out = calibrate(tmp_path, "--method", "max", *budget)
    tried = [line.split() for line in out.splitlines() if " of 12 kept" in line]
    kept = sum(p["keep_float"] for p in cal["products"])
    within = [int(t[0]) for t in tried if float(t[7]) <= 0.5]
    assert kept == min(within) and "fp32" in out
    found = json.loads(run("eval", "-m", TINY, "--backend", "cpu", "--precision", "fp32", "--compare", "int8", "--calibration",
                           tmp_path / "cal.json", "--json", *few, *sets))
    drop = -100 * sum(s["ndcg10_difference"][0] * s["queries"] for s in found) / sum(s["queries"] for s in found)
    assert drop <= 0.5 + 1e-3


@pytest.mark.parametrize("flags,says", [
    (("--max-ndcg-drop", "0.2"), "go together"),
    ((str(SETS / "xquad-en"),), "go together"),
    (("--max-ndcg-drop", "-1", str(SETS / "xquad-en")), "--max-ndcg-drop"),
])
def test_flags_that_make_no_sense(tmp_path, flags, says):
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    assert says in run("calibrate", "-m", TINY, "--pairs", tmp_path / "pairs.jsonl", "-o", tmp_path / "x", *flags, code=2)


def test_what_takes_no_calibration_cannot_measure(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    says = run("calibrate", "-m", TINY, "--backend", "cpu", "--format", "fp8", "--keep", 1, "--pairs", tmp_path / "pairs.jsonl",
               "-o", tmp_path / "x", code=1)
    assert "fp8" in says


def test_bisect_finds_a_set_of_which_none_can_go(tmp_path):
    calibrate(tmp_path, "--method", "max")  # for pairs.jsonl
    all_int8 = tmp_path / "plan.json"
    compare = ("compare", "-m", TINY, "--a", "cpu:fp32", "--b", "cpu:int8", "--pairs", tmp_path / "pairs.jsonl")
    loose = json.loads(run(*compare, "--bisect", "1000", "--plan", all_int8, "--json"))
    assert loose["keep"] == [] and loose["products"] == 12
    whole = error(tmp_path, "--calibration", all_int8)
    assert abs(whole - loose["largest"]) < 1e-5
    found = json.loads(run(*compare, "--bisect", whole / 2, "--plan", tmp_path / "cal.json", "--json"))
    cal = json.loads((tmp_path / "cal.json").read_text())
    names = [p["name"] for p in cal["products"] if p["keep_float"]]
    assert names == [p["name"] for p in found["keep"]] and 0 < len(names) < 12
    assert abs(error(tmp_path, "--calibration", tmp_path / "cal.json") - found["largest"]) < 1e-5
    for name in names:
        less = json.loads(json.dumps(cal))
        next(p for p in less["products"] if p["name"] == name)["keep_float"] = False
        (tmp_path / "less.json").write_text(json.dumps(less))
        assert error(tmp_path, "--calibration", tmp_path / "less.json") > found["tolerance"] >= found["largest"]
    assert "more than" in run(*compare, "--bisect", "1e-9", code=1)
    assert "takes a calibration" in run("compare", "-m", TINY, "--b", "cpu:fp32", "--pairs", tmp_path / "pairs.jsonl",
                                        "--bisect", "1", code=1)
    assert "--bisect" in run(*compare, "--plan", "x", code=2)


def card():
    p = subprocess.run([RERANK, "info", "-m", TINY, "--backend", "cuda"], capture_output=True, text=True, timeout=120)
    return p.returncode == 0


@pytest.mark.skipif(not card(), reason="no card")
def test_a_card_calibrates_compares_and_takes_the_folder_s_own(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(TINY, model)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PAIRS))
    on = ("-m", model, "--backend", "cuda")
    run("calibrate", *on, "--pairs", tmp_path / "pairs.jsonl", "-o", tmp_path / "cal.json", "--method", "max", "--smooth", "0.5",
        "--per-token", "--keep", "3")
    cal = json.loads((tmp_path / "cal.json").read_text())
    assert sum(p["keep_float"] for p in cal["products"]) == 3 and all(p["sensitivity"] > 0 for p in cal["products"][:8])

    def scored(*flags):
        out = run("score", *on, "--raw", "--pairs", tmp_path / "pairs.jsonl", *flags)
        return [json.loads(line)["score"] for line in out.splitlines()]

    plain = scored("--precision", "int8")
    shutil.copy(tmp_path / "cal.json", model / "calibration.int8.json")
    own = scored("--precision", "int8")
    assert own != plain and plain == scored("--precision", "int8", "--calibration", "none")
    assert max(abs(a - b) for a, b in zip(own, scored("--precision", "fp32"))) < 1
    found = run("compare", "-m", model, "--a", "cuda:fp32", "--b", "cuda:int8", "--pairs", tmp_path / "pairs.jsonl",
                "--bisect", "1000", "--json")
    assert json.loads(found)["products"] == 12

"""The program as a user's script sees it: output, order, memory, metrics, exit codes, bad input."""
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from eval_pairs import eval_pairs  # noqa: E402

RERANK = str((ROOT / os.environ.get("BUILD", "build") / "rerank").resolve())
MINI = ROOT / "models/mini"
TINY = ROOT / "tests/data/tiny-xlmr"
DOCS = ["Paris is the capital of France.", "The Seine is a river.", "Lyon", "", "zürich ☃"]


def run(*args, input=None, code=0, **kwargs):
    """Run rerank; text in and out, the exit code checked."""
    if isinstance(input, str):
        input = input.encode()
    p = subprocess.run([RERANK, *map(str, args)], input=input, capture_output=True, timeout=120,
                       **kwargs)
    assert p.returncode == code, (args, p.returncode, p.stderr[-500:])
    return p


def lines(p):
    return [json.loads(line) for line in p.stdout.splitlines()]


def score(*args, **kwargs):
    return run("score", "-m", TINY, *args, **kwargs)


def fails(*args, says, code=1, input=None):
    """The command fails with one line on stderr that holds says, and prints no result."""
    p = run(*args, input=input, code=code)
    message = p.stderr.decode()
    assert says in message and message.count("\n") == 1, message
    return p


def pair_lines(pairs):
    return "".join(json.dumps({"query": q, "document": d}) + "\n" for q, d in pairs)


# ---- score ---------------------------------------------------------------------------------


def test_jsonl_is_sorted_and_complete():
    got = lines(score("-q", "capital of France", "--jsonl", *DOCS))
    assert [r["rank"] for r in got] == [1, 2, 3, 4, 5]
    assert sorted(r["index"] for r in got) == [0, 1, 2, 3, 4]
    assert all(r["text"] == DOCS[r["index"]] for r in got)
    assert [r["score"] for r in got] == sorted((r["score"] for r in got), reverse=True)
    assert all(r["tokens"] == r["kept"] and r["truncated"] is False for r in got)


def test_raw_is_the_logit_of_the_score():
    want = {r["index"]: r["score"] for r in lines(score("-q", "a", "--jsonl", *DOCS))}
    raw = {r["index"]: r["score"] for r in lines(score("-q", "a", "--jsonl", "--raw", *DOCS))}
    for i in want:
        assert 1 / (1 + math.exp(-raw[i])) == pytest.approx(want[i], abs=1e-6)


def test_json_is_one_document_with_the_same_results():
    got = json.loads(score("-q", "Quel «pays»?", "--json", *DOCS).stdout)
    assert got["query"] == "Quel «pays»?"
    assert got["results"] == lines(score("-q", "Quel «pays»?", "--jsonl", *DOCS))


def test_top_n_keeps_the_best():
    everything = lines(score("-q", "a", "--jsonl", *DOCS))
    assert lines(score("-q", "a", "--jsonl", "-n", 2, *DOCS)) == everything[:2]
    assert lines(score("-q", "a", "--jsonl", "--top-n=99", *DOCS)) == everything


def test_equal_scores_keep_the_input_order():
    got = lines(score("-q", "a", "--jsonl", *["same"] * 9))
    assert [r["index"] for r in got] == list(range(9))


def test_table_fits_the_terminal_and_ranks_as_jsonl_does():
    env = dict(os.environ, COLUMNS="60")
    rows = score("-q", "a", *DOCS[:3], env=env).stdout.decode().splitlines()
    got = lines(score("-q", "a", "--jsonl", *DOCS[:3]))
    assert rows[0].split() == ["rank", "score", "index", "document"]
    for row, want in zip(rows[1:4], got):
        assert row.startswith(f"{want['rank']:4d}  {want['score']:.4f} ")
        assert want["text"][:10] in row and len(row) <= 60
    assert rows[5].startswith("3 documents in ")


def test_documents_from_files_and_standard_input(tmp_path):
    file = tmp_path / "docs"
    file.write_text('plain line\r\n{"id": "x", "text": "from json"}\n{"id": 7, "text": "seven"}\nno end')
    got = {r["index"]: r for r in lines(score("-q", "a", "-f", file, "--jsonl"))}
    assert [got[i]["text"] for i in range(4)] == ["plain line", "from json", "seven", "no end"]
    assert [got[i].get("id") for i in range(4)] == [None, "x", "7", None]
    again = lines(score("-q", "a", "--jsonl", input=file.read_bytes()))
    assert again == lines(score("-q", "a", "-f", file, "--jsonl"))


def test_truncation_is_reported():
    got = lines(score("-q", "a", "--max-length", 16, "--jsonl", "word " * 50, "word"))
    by_index = {r["index"]: r for r in got}
    assert by_index[0]["kept"] == 16 < by_index[0]["tokens"] and by_index[0]["truncated"] is True
    assert by_index[1]["truncated"] is False
    fails("score", "-m", TINY, "-q", "a", "--max-length", 16, "--truncation", "error", "word " * 50,
          says="tokens")


# ---- streams of pairs ----------------------------------------------------------------------


def test_pairs_answer_in_order_as_single_requests_do(tmp_path):
    rng = random.Random(1)
    words = "river capital France seine of the is a Lyon zürich".split()
    pairs = [(" ".join(rng.choices(words, k=3)), " ".join(rng.choices(words, k=rng.randint(1, 30))))
             for _ in range(700)]
    file = tmp_path / "pairs.jsonl"
    file.write_text(pair_lines(pairs))
    got = lines(score("--pairs", file, "--raw"))
    assert len(got) == 700 and set(got[0]) == {"score", "tokens", "kept", "truncated"}
    assert lines(score("--pairs", "-", "--raw", input=file.read_bytes())) == got
    for i in rng.sample(range(700), 5):
        alone = lines(score("-q", pairs[i][0], "--raw", "--jsonl", "--", pairs[i][1]))[0]
        assert all(alone[k] == got[i][k] for k in got[i])


def test_pairs_agree_with_hugging_face():
    """Those pairs of the truth file that are not truncated there, by their logits in fp32."""
    with safe_open(ROOT / "tests/data/mini-truth.safetensors", "np") as f:
        cu, ids, logits = (f.get_tensor(k) for k in ("cu", "ids", "logits"))
    tok = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    pairs = eval_pairs(60, random.Random(3))
    same = []
    for i, (q, d) in enumerate(pairs):
        if i < 2:  # oracle.py cuts these
            q, d = q[:12], d[:16]
        if tok.encode(q, d).ids == ids[cu[i]:cu[i + 1]].tolist():
            same.append((i, q, d))
    assert len(same) >= 3
    got = lines(run("score", "-m", MINI, "--pairs", "-", "--raw", "--precision", "fp32",
                    input=pair_lines([s[1:] for s in same])))
    for g, (i, _, _) in zip(got, same):
        assert g["score"] == pytest.approx(float(logits[i]), abs=1e-4)
        assert g["tokens"] == cu[i + 1] - cu[i]


def test_tokenize_pairs_equals_tokenizers():
    pairs = eval_pairs(120, random.Random(9)) + [("", ""), ("a", ""), ("\u0000", "x\u0000y")]
    got = lines(run("tokenize", "-m", MINI, "--max-length", 256, "--pairs", "-",
                    input=pair_lines(pairs)))
    tok = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    full = tok.encode_batch(pairs)
    tok.enable_truncation(256, strategy="only_second")
    for g, pair, whole, cut in zip(got, pairs, full, tok.encode_batch(pairs)):
        assert g["ids"] == cut.ids, pair
        assert (g["tokens"], g["kept"]) == (len(whole.ids), len(cut.ids))
        assert g["truncated"] == (len(whole.ids) > 256)


def test_tokenize_texts():
    tok = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    got = lines(run("tokenize", "-m", MINI, "--json", *DOCS))
    assert [g["ids"] for g in got] == [tok.encode(d).ids for d in DOCS]
    assert [g["pieces"] for g in got] == [tok.encode(d).tokens for d in DOCS]


def peak_kib(*args, input):
    """Peak resident size of one run, by wait4, which accounts for that child alone."""
    with open(os.devnull, "w") as null:
        p = subprocess.Popen([RERANK, *map(str, args)], stdin=open(input), stdout=null)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
    assert p.returncode == 0
    return usage.ru_maxrss


def test_memory_does_not_grow_with_the_file(tmp_path):
    line = pair_lines([("capital", "Paris is the capital of France. " * 20)])
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_text(line * 2000)
    large.write_text(line * 20000)
    assert large.stat().st_size > 12e6
    few = peak_kib("tokenize", "-m", TINY, "--pairs", "-", input=small)
    many = peak_kib("tokenize", "-m", TINY, "--pairs", "-", input=large)
    assert many < few + 2048


# ---- eval and bench ------------------------------------------------------------------------


def write_set(folder, n_query=7, n_doc=30):
    """A small set with graded judgements, some relevant documents not among the candidates."""
    rng = random.Random(4)
    words = "river capital France seine of the is a Lyon lake tower bridge".split()
    say = lambda n: " ".join(rng.choices(words, k=n))  # noqa: E731
    docs = [f"d{i}" for i in range(n_doc)]
    grades, cands = {}, {}
    with open(folder / "corpus.jsonl", "w") as f:
        for d in docs:
            f.write(json.dumps({"_id": d, "text": say(rng.randint(2, 20))}) + "\n")
    with open(folder / "queries.jsonl", "w") as f:
        for i in range(n_query):
            f.write(json.dumps({"_id": f"q{i}", "text": say(3)}) + "\n")
            grades[f"q{i}"] = {d: rng.randint(1, 3) for d in rng.sample(docs, 5)}
            cands[f"q{i}"] = rng.sample(docs, 20)
    for name, table in (("qrels", {q: g.items() for q, g in grades.items()}),
                        ("candidates", {q: [(d, i + 1) for i, d in enumerate(c)]
                                        for q, c in cands.items()})):
        with open(folder / f"{name}.tsv", "w") as f:
            f.write("query-id\tcorpus-id\tscore\n")
            f.writelines(f"{q}\t{d}\t{v}\n" for q in table for d, v in table[q])
    return grades, cands


def ndcg10(order, grades):
    gain = sum(grades.get(d, 0) / math.log2(r + 2) for r, d in enumerate(order[:10]))
    ideal = sorted(grades.values(), reverse=True)[:10]
    return gain / sum(g / math.log2(r + 2) for r, g in enumerate(ideal))


def mrr10(order, grades):
    return next((1 / (r + 1) for r, d in enumerate(order[:10]) if grades.get(d, 0) > 0), 0)


def recall(order, grades, k):
    return sum(d in grades for d in order[:k]) / len(grades)


def test_eval_metrics(tmp_path):
    grades, cands = write_set(tmp_path)
    detail = tmp_path / "detail.jsonl"
    got = json.loads(run("eval", "-m", TINY, "--precision", "fp32", "--json", "--per-query", detail,
                         tmp_path).stdout)[0]
    per_query = [json.loads(line) for line in detail.read_text().splitlines()]
    assert got["queries"] == len(per_query) == 7 and got["documents"] == 140
    sums = np.zeros(3)
    for q in per_query:
        top = [t["id"] for t in q["top"]]
        g = grades[q["query"]]
        assert [t["grade"] for t in q["top"]] == [g.get(d, 0) for d in top]
        assert set(top) <= set(cands[q["query"]])
        assert q["ndcg10"] == pytest.approx(ndcg10(top, g), abs=1e-9)
        assert q["mrr10"] == pytest.approx(mrr10(top, g), abs=1e-9)
        sums += [ndcg10(top, g), mrr10(top, g), recall(top, g, 10)]
    ours = next(v for k, v in got.items() if k.endswith("fp32"))
    assert [ours["ndcg10"], ours["mrr10"], ours["recall10"]] == pytest.approx(list(sums / 7))
    first = np.mean([[ndcg10(c, grades[q]), mrr10(c, grades[q]), recall(c, grades[q], 10),
                      recall(c, grades[q], 100)] for q, c in cands.items()], axis=0)
    assert [got["first_stage"][k] for k in ("ndcg10", "mrr10", "recall10", "recall100")] == \
        pytest.approx(list(first))


def test_eval_against_itself_has_no_difference(tmp_path):
    write_set(tmp_path)
    got = json.loads(run("eval", "-m", TINY, "--backend", "ref", "--compare", "ref", "--json",
                         tmp_path).stdout)[0]
    assert got["ndcg10_difference"] == [0, 0, 0]
    assert (got["top1_flips"], got["top10_flips"], got["kendall_tau"]) == (0, 0, 1)


def test_eval_per_query_says_what_changed(tmp_path):
    write_set(tmp_path)
    detail = tmp_path / "detail.jsonl"
    got = json.loads(run("eval", "-m", TINY, "--backend", "ref", "--compare", "cpu:int8", "--json", "--per-query", detail,
                         tmp_path).stdout)[0]
    rows = [json.loads(line) for line in detail.read_text().splitlines()]
    change = [q["compared"]["ndcg10"] - q["ndcg10"] for q in rows]
    assert {q["set"] for q in rows} == {tmp_path.name} and any(q["compared"]["kendall_tau"] < 1 for q in rows)
    assert got["ndcg10_difference"][0] == pytest.approx(np.mean(change), abs=1e-9)
    assert got["kendall_tau"] == pytest.approx(np.mean([q["compared"]["kendall_tau"] for q in rows]))
    for flips in ("top1", "top10"):
        assert got[f"{flips}_flips"] == sum(q["compared"][f"{flips}_flip"] for q in rows)


def test_eval_names_what_is_missing(tmp_path):
    fails("eval", "-m", TINY, tmp_path, says="corpus.jsonl")
    write_set(tmp_path)
    with open(tmp_path / "corpus.jsonl", "a") as f:
        f.write('{"_id": "last"}\n')
    fails("eval", "-m", TINY, tmp_path, says="corpus.jsonl: line 31")


def test_bench_json():
    got = json.loads(run("bench", "-m", TINY, "--docs", 5, "--length", 12, "--repeat", 3,
                         "--warmup", 0, "--precision", "fp32", "--json").stdout)
    assert len(got) == 1 and (got[0]["docs"], got[0]["tokens"]) == (5, 60)
    assert 0 < got[0]["p50_ms"] <= got[0]["p99_ms"]
    assert got[0]["tokens_per_s"] == pytest.approx(60e3 / got[0]["p50_ms"], rel=1e-6)


# ---- usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("args,says", [
    ([], "usage:"),
    (["scroe"], "no command"),
    (["score", "--tpo-n", "3"], "did you mean --top-n?"),
    (["score", "--top-n", "many"], "--top-n"),
    (["score", "--top-n"], "needs a value"),
    (["score", "doc"], "-q QUERY is needed"),
    (["score", "-q", "a", "--pairs", "x"], "--pairs"),
    (["score", "-q", "a", "b", "--precision", "fp31"], "fp32"),
    (["tokenize"], "--pairs"),
    (["eval"], "DIR"),
    (["bench", "--repeat", "0"], "--repeat"),
    (["demo"], "DIR:QUERY-ID"),
])
def test_wrong_usage_exits_2_and_says_why(args, says):
    assert says in run(*args, code=2).stderr.decode()


def test_help_and_version_exit_0():
    assert b"score" in run("--help").stdout
    assert run("--version").stdout.startswith(b"rerank ")
    for command in ("score", "tokenize", "info", "bench", "eval", "demo"):
        assert f"usage: rerank {command}".encode() in run(command, "--help").stdout


def test_info_names_model_and_backends():
    text = run("info", "-m", TINY).stdout.decode()
    assert "XLMRobertaForSequenceClassification, 3 layers x 64" in text and "✓ ref" in text


# ---- bad input -----------------------------------------------------------------------------


def test_empty_query_and_document_are_texts_like_others():
    got = lines(run("tokenize", "-m", MINI, "--pairs", "-", input=pair_lines([("", ""), ("a", "")])))
    assert got[0]["ids"] == [0, 2, 2, 2]
    assert lines(score("-q", "", "--jsonl", ""))[0]["tokens"] == 4


def test_invalid_utf8_reads_as_replacement_characters():
    bad = b'{"query": "a", "document": "x\xff\xfey"}\n'
    good = json.dumps({"query": "a", "document": "x\ufffd\ufffdy"}) + "\n"
    plain = lines(score("-q", "a", "--jsonl", "--raw", input=b"x\xff\xfey\n"))
    want = lines(score("--pairs", "-", "--raw", input=good))
    assert plain[0]["score"] == want[0]["score"] and plain[0]["tokens"] == want[0]["tokens"]
    p = subprocess.run([RERANK, "score", "-m", TINY, "--raw", "--pairs", "-"], input=bad,
                       capture_output=True, timeout=60)
    if p.returncode == 0:
        assert lines(p) == want
    else:
        assert b"line 1" in p.stderr and b"UTF-8" in p.stderr


def test_nul_bytes_are_part_of_the_text():
    by_line = lines(score("-q", "a", "--jsonl", "--raw", input=b"nul\x00in\n"))[0]
    by_json = lines(score("-q", "a", "--jsonl", "--raw", input='{"text": "nul\\u0000in"}\n'))[0]
    assert by_line["text"] == by_json["text"] == "nul\0in"
    assert by_line["score"] == by_json["score"] and by_line["tokens"] == by_json["tokens"]


def test_ten_megabyte_document_is_truncated(tmp_path):
    file = tmp_path / "big"
    file.write_text("The Seine is a river. " * 480000)
    got = lines(score("-q", "a", "-f", file, "--max-length", 64, "--jsonl"))
    assert len(got) == 1 and got[0]["kept"] == 64 and got[0]["tokens"] > 1000000


def micro_model(folder):
    """tiny-xlmr cut to one layer of 16 columns, so that many documents cost little."""
    shutil.copy(TINY / "tokenizer.json", folder)
    config = json.loads((TINY / "config.json").read_text())
    d, ff, config_ff = 16, 16, dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                    num_attention_heads=1)
    (folder / "config.json").write_text(json.dumps({**config, **config_ff}))
    rng = np.random.default_rng(1)
    shapes = {"roberta.embeddings.word_embeddings.weight": (config["vocab_size"], d),
              "roberta.embeddings.position_embeddings.weight": (config["max_position_embeddings"], d),
              "roberta.embeddings.token_type_embeddings.weight": (1, d)}
    layer = "roberta.encoder.layer.0."
    for name, (rows, columns) in {
            layer + "attention.self.query": (d, d), layer + "attention.self.key": (d, d),
            layer + "attention.self.value": (d, d), layer + "attention.output.dense": (d, d),
            layer + "intermediate.dense": (ff, d), layer + "output.dense": (d, ff),
            "classifier.dense": (d, d), "classifier.out_proj": (1, d)}.items():
        shapes |= {name + ".weight": (rows, columns), name + ".bias": (rows,)}
    for name in ("roberta.embeddings", layer + "attention.output", layer + "output"):
        shapes |= {name + ".LayerNorm.weight": (d,), name + ".LayerNorm.bias": (d,)}
    header, data = {}, b""
    for name, shape in shapes.items():
        raw = rng.standard_normal(shape, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def test_a_hundred_thousand_documents(tmp_path):
    docs = "".join(f"{i}\n" for i in range(100000))
    got = lines(run("score", "-m", micro_model(tmp_path), "-q", "a", "--jsonl", input=docs))
    assert len(got) == 100000 and {r["index"] for r in got} == set(range(100000))
    assert all(r["text"] == str(r["index"]) for r in got)
    assert all(a["score"] >= b["score"] for a, b in zip(got, got[1:]))


def test_no_documents():
    fails("score", "-m", TINY, "-q", "a", input="", says="no documents")
    assert score("--pairs", "-", input="").stdout == b""


def test_a_directory_where_a_file_should_be(tmp_path):
    fails("score", "-m", TINY, "-q", "a", "-f", tmp_path, says="is a directory")
    fails("score", "-m", TINY, "--pairs", tmp_path, says="is a directory")
    fails("tokenize", "-m", TINY, "--pairs", tmp_path, says="is a directory")
    shutil.copytree(TINY, tmp_path / "m")
    (tmp_path / "m/model.safetensors").unlink()
    (tmp_path / "m/model.safetensors").mkdir()
    fails("score", "-m", tmp_path / "m", "-q", "a", "b", says="model.safetensors")


def test_a_file_where_a_directory_should_be():
    for args in (["score", "-q", "a", "b"], ["tokenize", "a"], ["info"]):
        fails(args[0], "-m", TINY / "config.json", *args[1:], says="config.json")
    fails("eval", "-m", TINY, TINY / "config.json", says="config.json")


def test_what_is_missing_is_named(tmp_path):
    fails("score", "-m", tmp_path / "none", "-q", "a", "b", says="none")
    fails("score", "-m", TINY, "-q", "a", "-f", tmp_path / "none", says="No such file")
    shutil.copytree(TINY, tmp_path / "m")
    (tmp_path / "m/tokenizer.json").unlink()
    fails("score", "-m", tmp_path / "m", "-q", "a", "b", says="tokenizer")


@pytest.mark.parametrize("bad,says", [
    ('{"query": "a", "document": "b"', "unexpected end"),
    ('{"query": "a"}', 'no "document"'),
    ('{"document": "a"}', 'no "query"'),
    ('{"query": 3, "document": "b"}', "string"),
    ("plain text", "byte"),
    ('{"query": "a", "document": "b"} x', "byte"),
])
@pytest.mark.parametrize("command", ["score", "tokenize"])
def test_a_broken_line_is_named_after_those_before_it(command, bad, says):
    good = pair_lines([("q", f"d{i}") for i in range(300)])
    p = fails(command, "-m", TINY, "--pairs", "-", input=good + bad + "\n" + good,
              says="standard input: line 301")
    assert says in p.stderr.decode()
    assert len(lines(p)) == 300


def test_skip_bad_answers_every_line():
    text = pair_lines([("q", "d")]) + "oops\n" + pair_lines([("q", "d")])
    got = lines(score("--pairs", "-", "--skip-bad", input=text))
    assert [("score" in g, "error" in g) for g in got] == [(1, 0), (0, 1), (1, 0)]
    assert got[0] == got[2]


@pytest.mark.parametrize("args", [
    ["score", "-q", "a", "b"],
    ["score", "--pairs", "-"],
    ["tokenize", "--pairs", "-"],
    ["tokenize", "some text"],
    ["info"],
])
def test_lost_output_is_an_error(args):
    text = pair_lines([("q", "d")] * 3).encode()
    command = [RERANK, args[0], "-m", str(TINY), *args[1:]]
    with open("/dev/full", "wb") as full:
        p = subprocess.run(command, input=text, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert p.returncode == 1 and b"No space left" in p.stderr
    p = subprocess.run(command, input=text, stderr=subprocess.PIPE, timeout=60,
                       preexec_fn=lambda: os.close(1))
    assert p.returncode == 1 and b"standard output" in p.stderr


def test_a_reader_that_stops_ends_the_run(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(pair_lines([("q", "d " * 50)] * 20000))
    p = subprocess.Popen([RERANK, "tokenize", "-m", str(TINY), "--pairs", file],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert p.stdout.readline().startswith(b'{"ids":[0,')
    p.stdout.close()
    assert p.wait(60) != 0

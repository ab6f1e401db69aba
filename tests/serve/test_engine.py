"""The server over the real engine and the embedded model: what only they can show."""
import http.client
import json
import os
import signal
import threading
import time

import pytest

from serving import BUILD, MODEL, RERANK, Server, until

LONG = "The bridge was opened to traffic after six years of work. " * 100


@pytest.fixture(scope="module")
def s():
    with Server("-m", MODEL, binary=RERANK) as server:
        yield server


def test_too_long_is_cut_or_refused(s):
    body = {"query": "q", "texts": [LONG, "b"]}
    a = s.post("/rerank", body)
    assert a.status == 200 and a.headers["x-truncated-documents"] == "1"
    a = s.post("/rerank", {**body, "truncate": False})
    assert a.status == 422 and a.json["error_type"] == "Validation"
    a = s.post("/v1/rerank", {"query": "q", "documents": [LONG], "truncate": False})
    assert a.status == 400 and "512" in a.json["message"]
    left, right = (s.post("/rerank", {"query": "bridge", "texts": [LONG[:2000] + "x y z " * 300],
                                      "truncation_direction": d, "raw_scores": True}).json[0]["score"]
                   for d in ("Left", "Right"))
    assert left != right
    a = s.post("/v1/rerank", {"query": "q", "documents": [LONG], "max_length": 64, "details": True}).json
    assert a["results"][0]["tokens_used"] == 64 and a["usage"]["total_tokens"] == 64


def test_flags_and_variables_of_every_command():
    env = {"RERANK_MAX_QUERY": "5", "RERANK_MAX_LENGTH": "32", "RERANK_TRUNCATION_SIDE": "left"}
    with Server("-m", MODEL, "--max-length", "64", binary=RERANK, env=env) as s:
        def used(doc, **more):
            body = {"query": "word " * 50, "documents": [doc], "details": True, **more}
            return s.post("/v1/rerank", body).json["results"][0]["tokens_used"]
        assert used(LONG) == 64 and used("a") < 12 < used("a", max_tokens_per_query=20)


def test_whole_requests_are_admitted_or_refused():
    with Server("-m", MODEL, "--max-queue-tokens", "600", binary=RERANK) as s:
        a = s.post("/v1/rerank", {"query": "q", "documents": [LONG] * 2})
        assert a.status == 413 and "600" in a.json["message"]
        codes = []

        def client():
            a = s.post("/v1/rerank", {"query": "q", "documents": [LONG]})
            codes.append(a.status)
            assert a.status == 200 or 1 <= int(a.headers["retry-after"]) <= 120

        threads = [threading.Thread(target=client) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert set(codes) == {200, 429}
        assert s.metric('rerank_rejected_total{reason="busy"}') == codes.count(429)
        assert s.post("/v1/rerank", {"query": "q", "documents": ["a"]}).status == 200


def test_tokens_and_back(s):
    for text in ("Paris is the capital of France.", "珠穆朗玛峰海拔约八千八百四十九米。", "naïve  café"):
        tokens = s.post("/tokenize", {"inputs": text}).json[0]
        assert tokens[0]["text"] == "<s>" and tokens[-1]["special"]
        for t in tokens[1:-1]:
            assert text[t["start"]:t["stop"]] == t["text"]
        plain = s.post("/tokenize", {"inputs": text, "add_special_tokens": False}).json[0]
        assert [t["id"] for t in plain] == [t["id"] for t in tokens[1:-1]]
    ids = [t["id"] for t in s.post("/tokenize", {"inputs": "Paris is the capital of France."}).json[0]]
    assert s.post("/decode", {"ids": ids}).json == ["Paris is the capital of France."]
    assert s.post("/decode", {"ids": ids, "skip_special_tokens": False}).json[0].startswith("<s>")


def test_ids_and_texts_agree(s):
    """KServe with token ids gives the logits that the texts give."""
    raw = s.post("/score", {"text_1": "why", "text_2": ["because", "x"], "use_activation": False}).json
    rows = []
    for doc in ("because", "x"):
        q, d = (s.post("/tokenize", {"inputs": t, "add_special_tokens": False}).json[0] for t in ("why", doc))
        rows.append([0] + [t["id"] for t in q] + [2, 2] + [t["id"] for t in d] + [2])
    width = max(map(len, rows))
    inputs = [{"name": "input_ids", "shape": [2, width], "datatype": "INT64",
               "data": [r + [1] * (width - len(r)) for r in rows]},
              {"name": "attention_mask", "shape": [2, width], "datatype": "INT64",
               "data": [[1] * len(r) + [0] * (width - len(r)) for r in rows]}]
    out = s.post("/v2/models/mini/infer", {"inputs": inputs}).json["outputs"][0]["data"]
    assert out == [x["score"] for x in raw["data"]]
    inputs[0]["data"][0][0] = 10 ** 9
    assert s.post("/v2/models/mini/infer", {"inputs": inputs}).status == 400


def test_single_texts_among_pairs(s):
    """/predict scores each as if it were alone; a single text as its tokens through KServe."""
    inputs = [["why"], ["why", "because"], [LONG], ["", "x"], ["why", ""]]
    raw = {"raw_scores": True}
    a = s.post("/predict", {"inputs": inputs, **raw})
    assert a.status == 200 and a.headers["x-truncated-documents"] == "1"
    scores = [x[0]["score"] for x in a.json]
    assert scores == [s.post("/predict", {"inputs": [x], **raw}).json[0][0]["score"] for x in inputs]
    pair = s.post("/score", {"text_1": "why", "text_2": "because", "use_activation": False}).json
    assert scores[1] == pair["data"][0]["score"] and len(set(scores)) == 5
    for i in (0, 2):
        ids = [t["id"] for t in s.post("/tokenize", {"inputs": inputs[i][0]}).json[0]]
        ids = ids[:511] + ids[-1:] if len(ids) > 512 else ids
        data = {"shape": [1, len(ids)], "datatype": "INT64"}
        out = s.post("/v2/models/mini/infer", {"inputs": [
            {"name": "input_ids", "data": ids, **data},
            {"name": "attention_mask", "data": [1] * len(ids), **data}]})
        assert out.json["outputs"][0]["data"][0] == scores[i]
    a = s.post("/predict", {"inputs": [["a"], [LONG]], "truncate": False})
    assert a.status == 422 and "512" in a.json["error"]


def test_many_documents(s):
    n = 3000
    a = s.post("/v1/rerank", {"query": "q", "documents": [f"{i % 7}" for i in range(n)]}, timeout=120)
    assert a.status == 200 and len(a.json["results"]) == n
    scores = {}
    for r in a.json["results"]:  # the same text has the same score in any company
        scores.setdefault(r["index"] % 7, set()).add(r["relevance_score"])
    assert all(len(v) == 1 for v in scores.values()) and len(scores) == 7


def test_drain_under_load():
    s = Server("-m", MODEL, binary=RERANK)
    sent, answered, lock = [], [], threading.Lock()
    stop = threading.Event()

    def client(k):
        for i in range(1000):
            c = http.client.HTTPConnection(s.host, s.port, timeout=60)
            try:
                c.connect()
            except OSError:
                return
            if stop.is_set():
                return
            with lock:
                sent.append((k, i))
            c.request("POST", "/v1/rerank", json.dumps({"query": "q", "documents": ["a b c"] * 3}))
            r = c.getresponse()
            assert r.status == 200 and len(json.loads(r.read())["results"]) == 3
            with lock:
                answered.append((k, i))

    threads = [threading.Thread(target=client, args=(k,)) for k in range(6)]
    [t.start() for t in threads]
    time.sleep(1)
    stop.set()
    time.sleep(0.05)
    s.process.send_signal(signal.SIGTERM)
    [t.join(60) for t in threads]
    assert s.stop(timeout=60) == 0
    assert sorted(sent) == sorted(answered) and len(sent) >= 6


def test_starts_anew_when_a_card_faults(tmp_path):
    """A kernel that traps ends CUDA for the whole process; a new one takes the same socket and serves on."""
    path, preload = tmp_path / "fault", os.path.abspath(f"{BUILD}/fault.so")
    body = {"query": "capital of France", "texts": [f"Paris, number {i}" for i in range(8)]}
    if not os.path.exists(preload):
        pytest.skip("built without CUDA")
    try:
        server = Server("-m", MODEL, "--backend", "cuda", "--devices", "all", "--health-every", "200", "--renew-after",
                        "1", "--drain-timeout", "2", binary=RERANK,
                        env={"LD_PRELOAD": preload, "RERANK_TEST_FAULT": str(path)})
    except RuntimeError as e:
        assert "cuda" in str(e)
        pytest.skip(str(e))
    with server as s:
        want, pid = s.post("/rerank", body), s.process.pid
        assert want.status == 200
        path.write_text("")
        until(lambda: s.get("/health").status == 503)
        assert s.process.stdout.readline().decode().split()[0] == s.url
        until(lambda: s.get("/health").status == 200, 60)
        assert s.post("/rerank", body).json == want.json
        assert s.process.pid == pid and not path.exists()
        assert any("starting anew" in x.get("event", "") for x in s.log_lines())

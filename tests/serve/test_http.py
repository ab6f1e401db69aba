"""The server over an engine without a model: dialects, errors, limits, faults, draining."""
import gzip
import http.client
import json
import math
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from serving import NULL, Server, until

DOCS = ["a" * 9, "b" * 3, "c" * 12]  # logits 1, -5, 4: see null_engine.c


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.fixture(scope="module")
def s():
    with Server("--cors-origin", "*") as server:
        yield server


# ---- dialects --------------------------------------------------------------------------------


def test_tei(s):
    a = s.post("/rerank", {"query": "q", "texts": DOCS, "return_text": True})
    assert [x["index"] for x in a.json] == [2, 0, 1]
    assert [x["text"] for x in a.json] == [DOCS[2], DOCS[0], DOCS[1]]
    assert a.json[0]["score"] == pytest.approx(sigmoid(4), abs=1e-7)
    assert a.headers["content-type"] == "application/json"
    for name in ("x-compute-type", "x-compute-time", "x-compute-characters", "x-compute-tokens",
                 "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert a.headers[name] is not None
    a = s.post("/rerank", {"query": "q", "texts": DOCS, "raw_scores": "true"})
    assert [x["score"] for x in a.json] == [4, 1, -5]
    assert "text" not in a.json[0]
    for path in ("/", "/invocations"):
        assert s.post(path, {"query": "q", "texts": DOCS}).json[0]["index"] == 2


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_results(s, path):
    a = s.post(path, {"model": "m", "query": "q", "documents": [DOCS[0], {"text": DOCS[1]}, DOCS[2]],
                      "top_n": 2, "unknown": {"x": [1]}}).json
    assert [x["index"] for x in a["results"]] == [2, 0]
    assert "document" not in a["results"][0]
    assert a["model"] == "m" and a["usage"]["total_tokens"] > 0
    assert a["meta"]["billed_units"]["search_units"] == 1 and a["id"]
    a = s.post(path, {"query": {"text": "q"}, "documents": DOCS, "return_documents": "true",
                      "top_k": 1, "use_activation": False, "details": True}).json
    assert a["results"][0]["document"] == {"text": DOCS[2]}
    assert a["results"][0]["relevance_score"] == 4 and len(a["results"]) == 1
    assert a["results"][0]["truncated"] is False and a["timings"]["total_ms"] > 0


def test_ties_go_to_the_lower_index(s):
    a = s.post("/v1/rerank", {"query": "q", "documents": ["xx", "yyy", "zz", "ww"]}).json
    assert [x["index"] for x in a["results"]] == [1, 0, 2, 3]


def test_score(s):
    for path in ("/score", "/v1/score"):
        a = s.post(path, {"text_1": "q", "text_2": DOCS}).json
        assert [x["score"] for x in a["data"]] == pytest.approx([sigmoid(x) for x in (1, -5, 4)])
    a = s.post("/score", {"queries": ["p", "q"], "documents": DOCS[:2], "use_activation": False})
    assert [x["score"] for x in a.json["data"]] == [1, -5]
    assert s.post("/score", {"text_1": "q", "text_2": "aaa"}).json["data"][0]["index"] == 0
    assert s.post("/score", {"text_1": ["p", "q"], "text_2": DOCS}).status == 400


def test_predict(s):
    raw = {"raw_scores": True}
    assert s.post("/predict", {"inputs": ["q", DOCS[0]], **raw}).json == [
        {"score": 1, "label": "LABEL_0"}]
    a = s.post("/predict", {"inputs": [["q", d] for d in DOCS], **raw}).json
    assert [x[0]["score"] for x in a] == [1, -5, 4]
    assert s.post("/predict", {"inputs": "abc", **raw}).json == [{"score": -5, "label": "LABEL_0"}]
    a = s.post("/predict", {"inputs": [["abc"], ["q", DOCS[0]], ["q", ""]], **raw}).json
    assert [x[0]["score"] for x in a] == [-5, 1, -8]
    for bad in ([["a", "b", "c"]], [[]], [1], 7, None, {"a": 1}):
        assert s.post("/predict", {"inputs": bad}).status == 422, bad
    assert s.post("/predict", {"inputs": []}).status in (400, 422)


def test_llamacpp(s):
    for path in ("/reranking", "/v1/reranking"):
        a = s.post(path, {"query": "q", "documents": DOCS, "top_n": 2}).json
        assert [(x["index"], x["relevance_score"]) for x in a["results"]] == [(2, 4), (0, 1)]
        a = s.post(path, {"query": "q", "texts": DOCS, "return_text": True}).json
        assert [(x["text"], x["score"]) for x in a] == [(DOCS[2], 4), (DOCS[0], 1), (DOCS[1], -5)]
        a = s.post(path, {"query": "q", "documents": DOCS, "raw_scores": False}).json
        assert a["results"][0]["relevance_score"] == pytest.approx(sigmoid(4), abs=1e-7)
        a = s.post(path, {"query": "q", "documents": []})
        assert a.status == 400 and a.json["error"]["code"] == 400


def test_nim(s):
    body = {"model": "m", "query": {"text": "q"}, "passages": [{"text": d} for d in DOCS], "truncate": "END"}
    a = s.post("/v1/ranking", body).json
    assert a["rankings"] == [{"index": 2, "logit": 4}, {"index": 0, "logit": 1}, {"index": 1, "logit": -5}]
    assert s.post("/v1/ranking", {**body, "truncate": "NONE"}).status == 200
    assert s.post("/v1/ranking", {"query": {"text": "q"}}).json["error"]["type"] == "BadRequestError"


def test_voyage(s):
    path, body = "/voyage/v1/rerank", {"model": "rerank-2", "query": "q", "documents": DOCS, "top_k": 2}
    a = s.post(path, body).json
    assert a["object"] == "list" and a["usage"]["total_tokens"] > 0
    assert [(x["index"], x["relevance_score"]) for x in a["data"]] == \
        [(2, pytest.approx(sigmoid(4), abs=1e-7)), (0, pytest.approx(sigmoid(1), abs=1e-7))]
    assert "document" not in a["data"][0]
    assert s.post(path, {**body, "return_documents": True}).json["data"][0]["document"] == DOCS[2]
    assert s.post(path, {"query": "q"}).json["detail"]


def test_infinity(s):
    path, body = "/infinity/rerank", {"query": "q", "documents": DOCS, "return_documents": True, "raw_scores": True}
    a = s.post(path, body).json
    assert a["object"] == "rerank" and a["created"] > 1.7e9 and a["id"] and a["usage"]["total_tokens"] > 0
    assert [(x["index"], x["relevance_score"], x["document"]) for x in a["results"]] == \
        [(i, v, DOCS[i]) for i, v in ((2, 4), (0, 1), (1, -5))]
    assert s.post(path, {**body, "documents": []}).json["error"]["code"] == 400


def test_sglang(s):
    path, body = "/sglang/v1/rerank", {"query": "q", "documents": DOCS, "top_n": 2}
    a = s.post(path, body).json
    assert [(x["index"], x["document"]) for x in a] == [(2, DOCS[2]), (0, DOCS[0])]
    assert a[0]["score"] == pytest.approx(sigmoid(4), abs=1e-7)
    assert "document" not in s.post(path, {**body, "return_documents": False}).json[0]
    assert s.post(path, {"documents": DOCS}).status == 400


def test_vertex(s):
    one, two = {"query": "q", "texts": DOCS}, {"query": "p", "documents": DOCS[:2], "return_documents": True}
    for path in ("/vertex", "/predict"):
        a = s.post(path, {"instances": [{**one, "raw_scores": True, "top_n": 2}, two], "parameters": {}}).json
        first, second = a["predictions"]
        assert [(x["index"], x["score"]) for x in first] == [(2, 4), (0, 1)]
        assert [(x["index"], x["text"]) for x in second] == [(0, DOCS[0]), (1, DOCS[1])]
        assert second[0]["score"] == pytest.approx(sigmoid(1), abs=1e-7)
        for bad in ([], [7], [{"query": "q"}], [one, {"texts": ["a"]}], [{**one, "texts": []}], 7, [one, "x"]):
            assert s.post(path, {"instances": bad}).status == 400, bad
    many = [{"query": "q", "texts": ["a"] * 1000}] * 17
    assert s.post("/vertex", {"instances": many}).status == 413
    assert s.post("/vertex", {"query": "q", "texts": DOCS}).status == 400


def test_sagemaker(s):
    assert s.get("/ping").status == 200
    a = s.post("/invocations", {"text_pairs": [["q", d] for d in DOCS]}).json
    assert a["scores"] == [pytest.approx(sigmoid(x), abs=1e-7) for x in (1, -5, 4)]
    assert s.post("/invocations", {"inputs": ["a", "b"]}).status == 400
    assert s.post("/invocations", {"text_pairs": [["a", "b", "c"]]}).json["error"]["code"] == 400


def test_tokenize_and_decode(s):
    a = s.post("/tokenize", {"inputs": ["ab", "c"]}).json
    assert [[t["id"] for t in x] for x in a] == [[97, 98], [99]]
    assert a[0][1] == {"id": 98, "text": "b", "special": False, "start": 1, "stop": 2}
    assert s.post("/decode", {"ids": [97, 98]}).json == ["ab"]
    assert s.post("/decode", {"ids": [[97], [99]]}).json == ["a", "c"]
    assert s.post("/decode", {"ids": [-1]}).status == 422


def test_info(s):
    a = s.get("/info").json
    assert "reranker" in a["model_type"] and a["max_input_length"] == 512
    assert a["max_client_batch_size"] >= 32
    assert s.get("/v1/models").json["data"][0]["id"] == "mini"


def test_kserve(s):
    assert s.get("/v2/health/live").status == s.get("/v2/models/mini/ready").status == 200
    assert s.get("/v2/models/mini").json["inputs"][0]["name"] == "query"
    assert s.get("/v2/models/mini/versions/1/config").json["name"] == "mini"
    assert s.get("/v2/models/other").status == 404
    texts = [{"name": "query", "shape": [1], "datatype": "BYTES", "data": ["q"]},
             {"name": "documents", "shape": [3, 1], "datatype": "BYTES", "data": [[d] for d in DOCS]}]
    a = s.post("/v2/models/mini/infer", {"id": "7", "inputs": texts,
                                         "outputs": [{"name": "logits"}, {"name": "scores"}]}).json
    assert a["id"] == "7" and a["outputs"][0]["data"] == [1, -5, 4]
    assert a["outputs"][1]["data"] == pytest.approx([sigmoid(x) for x in (1, -5, 4)])
    ids = [{"name": "input_ids", "shape": [2, 3], "datatype": "INT64", "data": [1, 2, 3, 4, 5, 0]},
           {"name": "attention_mask", "shape": [2, 3], "datatype": "INT64", "data": [1, 1, 1, 1, 1, 0]}]
    a = s.post("/v2/models/mini/versions/1/infer", {"inputs": ids}).json
    assert a["outputs"][0] == {"name": "logits", "datatype": "FP32", "shape": [2], "data": [-5, -6]}


def test_kserve_binary(s):
    docs = b"".join(len(d).to_bytes(4, "little") + d.encode() for d in DOCS)
    head = json.dumps({"inputs": [
        {"name": "query", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
        {"name": "documents", "shape": [3], "datatype": "BYTES",
         "parameters": {"binary_data_size": len(docs)}}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}).encode()
    body = head + (1).to_bytes(4, "little") + b"q" + docs
    a = s.post("/v2/models/mini/infer", body,
               headers={"Inference-Header-Content-Length": str(len(head))})
    n = int(a.headers["Inference-Header-Content-Length"])
    assert json.loads(a.body[:n])["outputs"][0]["parameters"]["binary_data_size"] == 12
    import struct
    assert struct.unpack("<3f", a.body[n:]) == (1, -5, 4)
    for cut in range(1, 20, 3):  # a tensor that is cut off, and trailing bytes
        h = {"Inference-Header-Content-Length": str(len(head))}
        assert s.post("/v2/models/mini/infer", body[:-cut], headers=h).status == 400
        assert s.post("/v2/models/mini/infer", body + b"x" * cut, headers=h).status == 400
    h = {"Inference-Header-Content-Length": str(len(body) + 1)}
    assert s.post("/v2/models/mini/infer", body, headers=h).status == 400
    bad = [{"name": "input_ids", "shape": [2, 1 << 30], "datatype": "INT64", "data": []}]
    assert s.post("/v2/models/mini/infer", {"inputs": bad}).status == 400


# ---- errors ------------------------------------------------------------------------------------


def test_error_shapes(s):
    a = s.post("/v1/rerank", b"{")
    assert a.status == 400 and a.json["message"] == a.json["detail"] == a.json["error"]["message"]
    a = s.post("/rerank", {"query": "q", "texts": []})
    assert a.status == 400 and a.json["error_type"] == "Empty"
    a = s.post("/predict", {})
    assert a.status == 422 and a.json["error_type"] == "Validation"
    assert s.post("/v2/models/mini/infer", {}).json["error"]
    assert s.get("/nope").status == 404 and s.get("/nope").json["detail"]
    a = s.get("/rerank")
    assert a.status == 405 and a.headers["allow"] == "POST, OPTIONS" and a.json
    assert s.post("/rerank", b"{}", headers={"Content-Encoding": "br"}).status == 415


WRONG = [
    b"", b"null", b"[]", b"7", b'"x"', b"{", b"}", b'{"query"', b'{"query":}', b'{"query":"q"}',
    b'{"query":"q","documents":"', b'{"query":"q","documents":7}', b'{"query":"q","documents":[7]}',
    b'{"query":"q","documents":[null]}', b'{"query":"q","documents":[{"txt":"a"}]}',
    b'{"query":7,"documents":["a"]}', b'{"query":["a","b"],"documents":["a"]}',
    b'{"query":"q","documents":["a"],"top_n":-1}', b'{"query":"q","documents":["a"],"top_n":1.5}',
    b'{"query":"q","documents":["a"],"top_n":"x"}', b'{"query":"q","documents":["a"]}x',
    b'{"query":"q","documents":["a"],"deadline_ms":0}', b'{"query":"q","documents":["a"],}',
    b'{"query":"q","documents":["a"],"truncation_side":"up"}', b"\xff\xfe", b"[" * 100000,
    b'{"query":"q","documents":' + b"[" * 1000 + b"]" * 1000 + b"}", b'{"a":' * 1000,
    b'{"query":"\\u12","documents":["a"]}', b'{"query":"q","documents":["a"],"raw_scores":3}',
]


@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
def test_malformed_json(s, body):
    for path in ("/rerank", "/v2/rerank", "/score", "/predict", "/tokenize", "/decode",
                 "/v2/models/mini/infer"):
        a = s.post(path, body)
        if path in ("/rerank", "/v2/rerank"):
            assert a.status == 400, (path, a.body)
        assert a.status < 500 and a.json, (path, a.body)


def test_odd_but_valid(s):
    for docs in (["", "\0", "\U0001f600", "a\\b\"c\n"], ["x"] * 2000):
        a = s.post("/rerank", {"query": "", "documents": docs, "return_documents": True,
                               "top_n": None, "model": None, "truncate": "true"})
        assert a.status == 200 and len(a.json["results"]) == len(docs)
        assert {x["index"]: x["document"]["text"] for x in a.json["results"]} == dict(enumerate(docs))
    a = s.post("/rerank", b'{"query":"q","texts":["\xff\xfe"],"return_text":true}')
    assert a.json[0]["text"] == "\ufffd\ufffd"


MALFORMED_HTTP = [
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n", b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n{}",
    b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
    b"GET /%00%ff%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
]


@pytest.mark.parametrize("data", MALFORMED_HTTP, ids=range(len(MALFORMED_HTTP)))
def test_malformed_http(s, data):
    got = s.raw(data, timeout=0.3)
    assert not got or got.startswith(b"HTTP/1."), got[:80]
    assert b" 500 " not in got[:20] and s.get("/health").status == 200


def test_ambiguous_length(s):
    head = b"POST /rerank HTTP/1.1\r\nHost: x\r\n"
    inner = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    for framing in (b"Content-Length: 2\r\nContent-Length: 40\r\n", b"Content-Length: 2\r\nContent-Length: 2\r\n",
                    b"Content-Length: 40\r\nTransfer-Encoding: chunked\r\n"):
        got = s.raw(head + framing + b"\r\n{}" + inner, timeout=1)
        assert got.startswith(b"HTTP/1.1 400") and got.count(b"HTTP/1.1") == 1, got
        assert b"close" in got.lower() and b'"code":400' in got


def test_bodies_cut_off(s):
    body = json.dumps({"query": "q", "texts": DOCS}).encode()
    head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for n in range(0, len(head) + len(body), 7):
        with s.connect() as c:
            c.sendall((head + body)[:n])
    until(lambda: s.metric("rerank_http_requests_in_flight") == 1)
    assert s.get("/health").status == 200


# ---- options -----------------------------------------------------------------------------------


def test_trace_and_request_id(s):
    trace = "0af7651916cd43dd8448eb211c80319c"
    a = s.post("/rerank", {"query": "q", "texts": DOCS}, headers={
        "traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "my-id.1"})
    assert a.headers["x-request-id"] == "my-id.1"
    assert a.headers["traceresponse"].startswith(f"00-{trace}-")
    assert "total;dur=" in a.headers["server-timing"]
    until(lambda: any(x.get("id") == "my-id.1" for x in s.log_lines()))
    line = next(x for x in s.log_lines() if x.get("id") == "my-id.1")
    assert line["trace_id"] == trace and line["parent_id"] == "b7ad6b7169203331"
    assert line["status"] == 200 and line["docs"] == 3 and line["path"] == "/rerank"
    for bad in ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "x", "ff" + "-" * 60):
        assert s.post("/rerank", {"query": "q", "texts": DOCS},
                      headers={"traceparent": bad}).headers["traceresponse"] is None
    assert s.get("/health", headers={"x-request-id": 'a"b\\'}).headers["x-request-id"] != 'a"b\\'


def test_truncation_is_reported(s):
    a = s.post("/v1/rerank", {"query": "q", "documents": ["a" * 4000, "b"], "details": True})
    assert a.headers["x-truncated-documents"] == "1"
    one = next(x for x in a.json["results"] if x["index"] == 0)
    assert one["truncated"] is True and one["tokens_used"] == 512 and one["tokens"] > 512


def test_cors(s):
    a = s.request("OPTIONS", "/v1/rerank", headers={"Origin": "http://x"})
    assert a.status == 204 and a.headers["access-control-allow-origin"] == "*"
    assert "POST" in a.headers["access-control-allow-methods"]
    assert s.request("OPTIONS", "/nope").status == 404


def test_head_and_keep_alive(s):
    c = http.client.HTTPConnection(s.host, s.port, timeout=10)
    c.request("HEAD", "/health")
    r = c.getresponse()
    assert r.status == 200 and r.read() == b""
    sock = c.sock
    for _ in range(50):
        c.request("POST", "/rerank", json.dumps({"query": "q", "texts": DOCS}))
        assert len(json.loads(c.getresponse().read())) == 3
    assert c.sock is sock
    c.close()


def test_chunked(s):
    c = http.client.HTTPConnection(s.host, s.port, timeout=10)
    body = json.dumps({"query": "q", "texts": DOCS}).encode()
    c.request("POST", "/rerank", iter([body[:5], body[5:20], body[20:]]), encode_chunked=True,
              headers={"Transfer-Encoding": "chunked"})
    assert len(json.loads(c.getresponse().read())) == 3


def test_gzip(s):
    body = json.dumps({"query": "q", "texts": DOCS}).encode()
    plain, headers = s.post("/rerank", body).json, {"Content-Encoding": "gzip"}
    packed = gzip.compress(body)
    for data in (packed, gzip.compress(body[:9]) + gzip.compress(body[9:])):
        assert s.post("/rerank", data, headers=headers).json == plain
    for bad in (packed[:-3], packed[:11], packed + b"x", body, b"\x1f\x8b", gzip.compress(b"{")):
        assert s.post("/rerank", bad, headers=headers).status == 400, bad
    assert s.post("/rerank", packed, headers={"Content-Encoding": "br"}).status == 415
    c = http.client.HTTPConnection(s.host, s.port, timeout=10)
    c.request("POST", "/rerank", iter([packed[:5], packed[5:]]), encode_chunked=True,
              headers={"Transfer-Encoding": "chunked", **headers})
    assert json.loads(c.getresponse().read()) == plain


def test_gzip_bomb():
    with Server("--max-body", "1M") as s:
        before = s.metric("process_resident_memory_bytes")
        bomb = gzip.compress(gzip.compress(b" " * 50) + b" " * (200 << 20), 9)
        assert len(bomb) < 1 << 20
        for _ in range(5):
            a = s.post("/rerank", bomb, headers={"Content-Encoding": "gzip"})
            assert a.status == 413 and "1048576" in a.json["message"]
        assert s.metric("process_resident_memory_bytes") < before + (64 << 20)
        fits = json.dumps({"query": "q", "texts": ["a" * 1000]}).encode()
        fits += b" " * ((1 << 20) - len(fits))
        for more, status in ((b"", 200), (b" ", 413)):
            a = s.post("/rerank", gzip.compress(fits + more), headers={"Content-Encoding": "gzip"})
            assert a.status == status


def test_environment_and_flags():
    with Server("--max-docs", "3", env={"RERANK_MAX_DOCS": "1", "RERANK_MODEL_NAME": "name"}) as s:
        assert s.get("/info").json["max_client_batch_size"] == 3
        assert s.get("/info").json["model_id"] == "name"
    for args in (["--nope"], ["--port", "x"], ["--port"], ["--truncation", "up"]):
        assert subprocess.run([NULL, "serve", *args], capture_output=True).returncode == 2
    text = subprocess.run([NULL, "serve", "--help"], capture_output=True, text=True).stdout
    assert "--max-body" in text


# ---- limits ------------------------------------------------------------------------------------


def test_limits():
    with Server("--max-docs", "3", "--max-body", "10k", "--max-request-tokens", "100") as s:
        assert s.post("/rerank", {"query": "q", "texts": ["a"] * 4}).status == 413
        assert s.post("/rerank", {"query": "q", "documents": ["a"] * 4}).json["error"]["code"] == 413
        a = s.post("/rerank", {"query": "q", "documents": ["a" * 20000]})
        assert a.status == 413 and "10240" in a.json["message"]
        assert s.post("/rerank", {"query": "q", "texts": ["a" * 1000]}).status == 413
        c = http.client.HTTPConnection(s.host, s.port, timeout=10)
        c.request("POST", "/rerank", iter([b"x" * 5000] * 4), encode_chunked=True,
                  headers={"Transfer-Encoding": "chunked"})
        assert c.getresponse().status == 413
        assert s.metric('rerank_http_problems_total{reason="too_large"}') == 5


def test_queue_full_and_recovery():
    """FULL_S=60: for a minute, as make soak has it."""
    end = time.monotonic() + float(os.environ.get("FULL_S", "0"))
    with Server(env={"NULL_QUEUE": "40", "NULL_US": "20000"}) as s:
        codes, after = [], []

        def client():
            i = 0
            while i < 20 or time.monotonic() < end:
                i += 1
                a = s.post("/v1/rerank", {"query": "q", "documents": ["a" * 64]})
                codes.append(a.status)
                if a.status == 429:
                    after.append(int(a.headers["retry-after"]))
                    assert a.json["error"]["type"] == "RateLimitError"

        threads = [threading.Thread(target=client) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert set(codes) == {200, 429} and set(after) == {2}
        assert s.metric("rerank_queue_tokens") == 0 and s.metric("rerank_http_requests_in_flight") == 1
        for _ in range(20):  # all of it is back
            assert s.post("/v1/rerank", {"query": "q", "documents": ["a"]}).status == 200


def test_deadline():
    with Server(env={"NULL_US": "100000"}) as s:
        def slow():
            s.post("/rerank", {"query": "q", "texts": ["a"]})

        threads = [threading.Thread(target=slow) for _ in range(3)]
        [t.start() for t in threads]
        time.sleep(0.03)
        a = s.post("/v1/rerank", {"query": "q", "documents": ["a"], "deadline_ms": 50})
        assert a.status == 504
        a = s.post("/rerank", {"query": "q", "texts": ["a"]},
                   headers={"X-Request-Deadline-Ms": "5000"})
        assert a.status == 200
        assert s.post("/rerank", b"{}", headers={"X-Request-Deadline-Ms": "x"}).status == 400
        [t.join() for t in threads]


def test_timeouts():
    with Server("--header-timeout", "1", "--body-timeout", "1", "--idle-timeout", "2") as s:
        start = time.monotonic()
        with s.connect() as c:  # trickles a byte of its headers now and then
            c.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\n")
            closed = False
            while not closed and time.monotonic() - start < 8:
                time.sleep(0.2)
                try:
                    c.sendall(b"X")
                    c.settimeout(0.01)
                    closed = c.recv(1) == b""
                except TimeoutError:
                    pass
                except OSError:
                    closed = True
            assert closed
        with s.connect() as c:
            c.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            c.settimeout(6)
            assert c.recv(100) == b""
        with s.connect() as c:
            c.settimeout(6)
            assert c.recv(100) == b""
        assert s.get("/health").status == 200


# ---- keys, TLS, unix ---------------------------------------------------------------------------


def test_keys(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# ours\n\n  first-key  \nsecond\n")
    with Server("--api-keys", str(keys)) as s:
        body = {"query": "q", "texts": ["a"]}

        def status(**headers):
            return s.post("/rerank", body, headers=headers).status

        assert status() == 401
        assert s.post("/rerank", body).headers["www-authenticate"] == "Bearer"
        for bad in ("Bearer ", "Bearer first", "Bearer first-keyx", "x", "Bearer # ours", "y" * 5000):
            assert status(Authorization=bad) == 401
        assert status(Authorization="Bearer first-key") == 200
        assert status(authorization="bearer second") == 200
        assert status(Authorization="second") == 200
        assert status(**{"X-Api-Key": "second"}) == 200
        assert s.get("/info").status == 401
        for path in ("/health", "/ready", "/metrics", "/", "/openapi.json", "/v2/health/live"):
            assert s.get(path).status == 200
        keys.write_text("third\n")
        s.process.send_signal(signal.SIGHUP)
        until(lambda: status(Authorization="Bearer third") == 200)
        assert status(Authorization="Bearer second") == 401
        keys.write_text("")  # unusable: the old ones stay
        s.process.send_signal(signal.SIGHUP)
        until(lambda: any("no key" in x.get("event", "") for x in s.log_lines()))
        assert status(Authorization="Bearer third") == 200


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_tls(tmp_path):
    cert, key = str(tmp_path / "c.pem"), str(tmp_path / "k.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
                    cert, "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    with Server("--tls-cert", cert, "--tls-key", key) as s:
        assert s.url.startswith("https://")
        ctx = ssl.create_default_context(cafile=cert)
        c = http.client.HTTPSConnection(s.host, s.port, context=ctx, timeout=10)
        for _ in range(3):
            c.request("POST", "/rerank", json.dumps({"query": "q", "texts": ["a" * 100000, "b"]}))
            assert len(json.loads(c.getresponse().read())) == 2
        assert not s.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", timeout=1).startswith(b"HTTP/1.1 200")
    r = subprocess.run([NULL, "serve", "--tls-cert", cert], capture_output=True, text=True)
    assert r.returncode == 1 and "key" in r.stderr


def test_unix_socket(tmp_path):
    path = str(tmp_path / "s.sock")
    for _ in range(2):
        with Server("--unix", path) as s:
            assert s.url == f"unix:{path}"
            assert s.get("/health").status == 200
        assert not os.path.exists(path)


# ---- faults ------------------------------------------------------------------------------------


def test_hang_and_failure_are_seen(tmp_path):
    for name in ("NULL_HANG", "NULL_FAIL"):
        fault = tmp_path / name
        with Server("--health-every", "50", "--health-timeout", "100", env={name: str(fault)}) as s:
            assert s.get("/health").status == 200 and s.get("/ready").status == 200
            fault.write_text("")
            until(lambda: s.get("/health").status == 503)
            assert s.get("/health").json["error_type"] == "Unhealthy"
            assert s.get("/ready").status == 503 and s.get("/v2/health/ready").status == 400
            assert s.metric("rerank_healthy") == 0
            if name == "NULL_FAIL":
                assert s.post("/rerank", {"query": "q", "texts": ["a"]}).status == 424
                assert s.post("/v1/rerank", {"query": "q", "documents": ["a"]}).status == 500
            fault.unlink()
            until(lambda: s.get("/health").status == 200)


def test_a_client_that_leaves_cancels():
    with Server(env={"NULL_US": "300000"}) as s:
        body = json.dumps({"query": "q", "texts": ["a"]}).encode()
        head = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        for _ in range(4):
            with s.connect() as c:
                c.sendall(head + body)
                time.sleep(0.02)
        until(lambda: s.metric("rerank_canceled_total") == 3)
        until(lambda: s.metric("rerank_http_clients_left_total") >= 3)


def test_drain_loses_nothing():
    """Every request that the server's log knows was answered to its client, and the other way round. A
    connection that the kernel had queued when the listener closed is reset and in no log."""
    s = Server("--drain-delay", "300", env={"NULL_US": "2000"})
    answered, reset, failed, lock = set(), set(), [], threading.Lock()
    body = json.dumps({"query": "q", "texts": DOCS})

    def client(k):
        c = http.client.HTTPConnection(s.host, s.port, timeout=10)
        for i in range(100000):
            name = f"{k}-{i}"
            try:
                c.request("POST", "/rerank", body, {"X-Request-Id": name})
                r = c.getresponse()
                ok = r.status == 200 and len(json.loads(r.read())) == 3
                with lock:
                    answered.add(name) if ok else failed.append((name, r.status))
                if r.getheader("connection") == "close":
                    c.close()
            except ConnectionRefusedError:
                return  # no longer listening
            except (ConnectionError, http.client.RemoteDisconnected):
                with lock:
                    reset.add(name)
                c.close()
            except Exception as e:
                failed.append((name, repr(e)))
                return

    threads = [threading.Thread(target=client, args=(k,)) for k in range(16)]
    [t.start() for t in threads]
    time.sleep(0.5)
    s.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert s.get("/ready").status == 503  # and still serves
    assert s.get("/health").status == 200
    [t.join(15) for t in threads]
    assert s.stop() == 0
    logged = {x["id"]: x["status"] for x in s.log_lines() if x.get("path") == "/rerank"}
    assert not failed, failed[:5]
    assert len(answered) > 50 and set(logged.values()) == {200}
    assert set(logged) == answered and not reset & set(logged)


def ask_anew(s, answers, stop):
    """Requests on a fresh connection each, until told to stop; what came of them."""
    while not stop.is_set():
        try:
            answers.append(s.post("/rerank", {"query": "q", "texts": DOCS}, timeout=20).status)
        except Exception as e:
            answers.append(repr(e))


@pytest.mark.parametrize("unix", [False, True])
def test_a_new_program_takes_over_without_losing_a_request(unix, tmp_path):
    """SIGUSR1: the process becomes a new program; connections made in between wait in the socket."""
    flags = ["--unix", str(tmp_path / "s.sock")] if unix else []
    with Server(*flags, env={"NULL_US": "1000"}) as s:
        answers, stop = [], threading.Event()
        clients = [threading.Thread(target=ask_anew, args=(s, answers, stop)) for _ in range(8)]
        [c.start() for c in clients]
        until(lambda: len(answers) > 100)
        before, pid = s.metric("rerank_documents_total"), s.process.pid
        s.process.send_signal(signal.SIGUSR1)
        assert s.process.stdout.readline().decode().split()[0] == s.url  # the new one listens, at the same address
        n = len(answers)
        until(lambda: len(answers) > n + 100)
        stop.set()
        [c.join() for c in clients]
        assert set(answers) == {200}, [a for a in answers if a != 200][:5]
        assert s.process.poll() is None and s.process.pid == pid and 0 < before
        assert s.metric("rerank_documents_total") < 3 * len(answers)  # counted anew
        events = [x["event"] for x in s.log_lines() if "event" in x]
        assert "draining, to start anew" in events and "drained" in events
        assert s.stop() == 0
    if unix:
        assert not os.path.exists(flags[1])


def test_starts_anew_when_no_instance_works(tmp_path):
    for name in ("NULL_HANG", "NULL_FAIL"):
        fault = tmp_path / name
        with Server("--health-every", "50", "--health-timeout", "100", "--renew-after", "1", "--drain-timeout", "1",
                    env={name: str(fault)}) as s:
            fault.write_text("")
            began = time.monotonic()
            until(lambda: s.get("/health").status == 503)
            assert s.process.stdout.readline().decode().split()[0] == s.url
            assert time.monotonic() - began > 1
            fault.unlink()
            until(lambda: s.get("/health").status == 200)
            assert s.post("/rerank", {"query": "q", "texts": DOCS}).status == 200
            assert any("starting anew" in x.get("event", "") for x in s.log_lines())
    fault = tmp_path / "never"
    with Server("--health-every", "50", "--renew-after", "-1", env={"NULL_FAIL": str(fault)}) as s:
        fault.write_text("")
        time.sleep(1.5)
        assert s.get("/health").status == 503 and not any("anew" in x.get("event", "") for x in s.log_lines())


def inherit(fd, *flags, count=1):
    """A server that inherits fd as systemd would hand it over, and its first line of output."""
    script = f'exec 3<&{fd} {fd}<&-; LISTEN_FDS={count} LISTEN_PID=$$ exec "$0" "$@"'
    return subprocess.Popen(["bash", "-c", script, NULL, "serve", "--log", "off", *flags], pass_fds=[fd],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_takes_an_inherited_socket():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        early = socket.create_connection(listener.getsockname())  # before there is a server
        early.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        p = inherit(listener.fileno(), "--port", "1")
        assert p.stdout.readline().split()[0] == "http://127.0.0.1:%d" % listener.getsockname()[1]
        early.settimeout(10)
        assert early.recv(65536).startswith(b"HTTP/1.1 200")
        p.terminate()
        assert p.wait(20) == 0
    with open("/dev/null") as f:
        p = inherit(f.fileno())
        assert p.wait(20) == 1 and "LISTEN_FDS: descriptor 3 is no listening socket" in p.stderr.read()


def test_metrics_parse(s):
    parser = pytest.importorskip("prometheus_client.parser")
    s.post("/rerank", {"query": "q", "texts": DOCS})
    text = s.get("/metrics").body.decode()
    families = {f.name: f for f in parser.text_string_to_metric_families(text)}
    assert all(n.startswith(("rerank_", "process_")) for n in families)
    for name in ("rerank_tokenize_seconds", "rerank_queue_seconds", "rerank_forward_seconds",
                 "rerank_total_seconds", "rerank_http_request_duration_seconds"):
        buckets = [x for x in families[name].samples if x.name.endswith("_bucket")]
        values = [x.value for x in buckets]
        assert values == sorted(values) and buckets[-1].labels["le"] == "+Inf"
        count = next(x.value for x in families[name].samples if x.name.endswith("_count"))
        assert count == values[-1]
    ok = [x for x in families["rerank_http_requests"].samples
          if x.labels == {"method": "POST", "path": "/rerank", "code": "200"}]
    assert ok[0].value >= 1

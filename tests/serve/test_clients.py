"""Clients from PyPI, unchanged, against the running server with the embedded model: the scores they
get are those of `rerank score`. Makes build/py-clients on the first run."""
import json
import os
import subprocess
import sys

import pytest

from serving import MODEL, RERANK, Server

ENV = os.environ.get("CLIENTENV", "build/py-clients")
WANT = "tools/requirements-clients.txt"
NAMES = ["cohere_v1", "cohere_v2", "llama_index_tei", "haystack_tei", "langchain_jina",
         "langchain_infinity_shape", "langchain_nvidia", "langchain_sagemaker", "litellm_cohere",
         "litellm_vllm", "litellm_huggingface", "voyage", "triton_binary", "triton_json"]
QUERY = "Why do leaves change colour in autumn?"
DOCS = ["Maple syrup is made by boiling down the sap of sugar maples.",
        "As days shorten, trees stop making chlorophyll and the green fades.",
        "Red leaves come from pigments that trees make in autumn.",
        "Herbst ist die Jahreszeit zwischen Sommer und Winter.", "树叶在秋天变黄。"]


@pytest.fixture(scope="module")
def python():
    """The interpreter that has the clients."""
    stamp, want = os.path.join(ENV, ".setup"), open(WANT).read()
    exe = os.path.join(ENV, "bin", "python")
    if "CLIENTENV" not in os.environ and not (os.path.exists(stamp) and open(stamp).read() == want):
        subprocess.run([sys.executable, "-m", "venv", ENV], check=True)
        subprocess.run([exe, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", WANT],
                       check=True)
        with open(stamp, "w") as f:
            f.write(want)
    return exe


@pytest.fixture(scope="module")
def s():
    with Server("-m", MODEL, binary=RERANK) as server:
        yield server


@pytest.fixture(scope="module")
def truth():
    lines = "".join(json.dumps({"query": QUERY, "document": d}) + "\n" for d in DOCS)
    out = subprocess.run([RERANK, "score", "-m", MODEL, "--pairs", "-"], input=lines, text=True,
                         capture_output=True, check=True).stdout
    return [json.loads(line)["score"] for line in out.splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_client(python, s, truth, name):
    r = subprocess.run([python, "tests/serve/clients.py", s.url, name], text=True, timeout=120,
                       input=json.dumps({"query": QUERY, "documents": DOCS}), capture_output=True,
                       env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"})
    assert r.returncode == 0, r.stderr[-2000:]
    assert json.loads(r.stdout.splitlines()[-1]) == pytest.approx(truth, abs=1e-6)


def test_schemathesis(python, tmp_path):
    """No crash, no hang, no 500, and every answer as /openapi.json says."""
    (tmp_path / "schemathesis.toml").write_text('[parameters]\n"path.model" = "mini"\n')
    checks = ("status_code_conformance,content_type_conformance,response_schema_conformance,"
              "response_headers_conformance")
    with Server() as null:
        r = subprocess.run([os.path.abspath(os.path.join(os.path.dirname(python), "schemathesis")),
                            "--config-file", str(tmp_path / "schemathesis.toml"), "run",
                            null.url + "/openapi.json", "--max-examples", "20", "--checks", checks],
                           capture_output=True, text=True, timeout=300, cwd=tmp_path)
        statuses = {line.get("status") for line in null.log_lines()}
        assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-1000:]
        assert 200 in statuses and not statuses & {0, 500, 501, 503}, statuses

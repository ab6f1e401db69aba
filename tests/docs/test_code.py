"""The programs of docs/code run, and print what their comments say."""
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ROOT / os.environ.get("BUILD", "build") / "docs/code"
MINI = ROOT / "models/mini"


def run(name, model=MINI):
    p = subprocess.run([CODE / name, model], capture_output=True, timeout=60)
    return p.returncode, p.stdout.decode(), p.stderr.decode()


def test_score():
    code, out, _ = run("score")
    seine, paris = (float(line.split()[0]) for line in out.splitlines())
    assert code == 0 and paris > 0.9 > seine


def test_submit():
    code, out, log = run("submit")
    assert code == 0 and out.endswith("8 requests done\n") and log.startswith("first request: ")
    alone = [line.split()[0] for line in run("score")[1].splitlines()]
    assert [line.split()[0] for line in out.splitlines()[:2]] == alone


def test_tokenize():
    code, out, _ = run("tokenize")
    text = "Tokyo: sunny, 21 °C.".encode()
    rows = [re.match(r" *(\d+)  bytes +(\d+) to +(\d+)  (.*)", line).groups()
            for line in out.splitlines()[:-1]]
    assert code == 0 and rows[0][3] == "<s>" and rows[-1][3] == "</s>"
    for _, start, end, piece in rows[1:-1]:
        assert text[int(start):int(end)].decode().strip() == piece.replace("▁", "")
    assert re.fullmatch(r"pair: \d+ tokens, 16 kept, truncated|pair: (\d+) tokens, \1 kept",
                        out.splitlines()[-1])


def test_errors():
    code, out, _ = run("errors")
    assert code == 0
    assert re.findall(r"^(\S.*): (RR_E_\w+), HTTP (\d+)$", out, re.M) == [
        ("no such folder", "RR_E_IO", "500"), ("no such backend", "RR_E_ARG", "400"),
        ("too long", "RR_E_TOO_LARGE", "413"), ("too late", "RR_E_TIMEOUT", "504")]


@pytest.mark.parametrize("name", ["score", "submit", "tokenize", "errors"])
def test_a_missing_model_is_an_error(name, tmp_path):
    code, _, err = run(name, tmp_path / "none")
    assert code == 1 and "RR_E_IO" in err and "none" in err

"""Engines at the command line, without TensorRT: which flags go together, and that an engine that is not right is refused
with its reason even where none could run. What needs the real library is in test_rtx.py."""
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RERANK = str(ROOT / os.environ.get("BUILD", "build") / "rerank")
MODEL = ROOT / "tests/data/tiny-xlmr"
PROFILES = [{"min": [1, 1], "opt": [2, 8], "max": [4, 16]}]


def run(*args, code=1):
    p = subprocess.run([RERANK, *map(str, args)], capture_output=True, text=True, timeout=60)
    assert p.returncode == code, p.stderr
    return p.stderr


def engine(tmp_path, **change):
    path = tmp_path / "e.plan"
    path.write_bytes(b"not an engine")
    manifest = {"rerank_engine": 2, "library": "TensorRT-RTX 1.7.1", "model_hash": "0123456789abcdef", "plan_hash": "0123456789abcdef",
                "precision": "fp16", "opset": 17, "bytes": 13, "profiles": PROFILES} | change
    Path(f"{path}.json").write_text(json.dumps(manifest))
    return path


SCORE = ("score", "-m", MODEL, "-q", "a", "b")


@pytest.mark.parametrize("flags,says", [
    (("--backend", "trt"), "--backend trt needs --engine FILE"),
    (("--backend", "cpu", "--engine", "x"), "--engine is for --backend trt, not cpu"),
    (("--rebuild",), "--rebuild needs the engine"),
    (("--engine", "x", "--calibration", "y"), "give --calibration to rerank build"),
    (("--engine", "/nowhere/x"), "/nowhere/x.json: No such file"),
    (("--engine", "/nowhere/x", "--rebuild"), "--rebuild needs the profiles of the engine")])
def test_flags_that_do_not_go_together(flags, says):
    assert says in run(*SCORE, *flags)


def test_a_stale_engine_is_refused_with_the_reason(tmp_path):
    for command in (SCORE, ("info", "-m", MODEL), ("bench", "-m", MODEL), ("serve", "-m", MODEL, "--port", "0")):
        assert "e.plan was made from other weights (0123456789abcdef) than this model's (" in run(*command, "--engine", engine(tmp_path))


def test_a_file_that_is_not_the_manifests_is_refused(tmp_path):
    said = run(*SCORE, "--engine", engine(tmp_path))
    here = said.split("this model's (")[1][:16]
    assert "not the file that its manifest describes" in run(*SCORE, "--engine", engine(tmp_path, model_hash=here))


def test_a_manifest_of_another_version_names_the_remedy(tmp_path):
    assert "rerank build" in run(*SCORE, "--engine", engine(tmp_path, rerank_engine=1))


def test_where_tensorrt_is_missing_the_rest_runs_and_info_says_how_to_get_it(tmp_path):
    """With the module or without: what it lacks is said, and nothing else is hurt."""
    env = {k: v for k, v in os.environ.items() if k != "RERANK_TRT_LIB"}
    with_module = (ROOT / os.environ.get("BUILD", "build") / "librerank-trt.so").exists()
    info = subprocess.run([RERANK, "info", "-m", MODEL, "--trt-lib", tmp_path], capture_output=True, text=True, env=env)
    said = next(line for line in info.stdout.splitlines() if " trt " in f" {line} ")
    assert info.returncode == 0 and ("pip install tensorrt-rtx-cu13-libs" if with_module else "make trt TRT=/path") in said, said
    build = run("build", "-m", MODEL, "-o", tmp_path / "e", "--trt-lib", tmp_path)
    assert ("pip install tensorrt-rtx-cu13-libs" if with_module else "make trt TRT=/path") in build and not list(tmp_path.iterdir())


def test_build_takes_no_engine():
    assert "-o FILE is written" in run("build", "-m", MODEL, "-o", "/nowhere/x", "--engine", "y", code=2)

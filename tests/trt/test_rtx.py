"""Exported ONNX through the real TensorRT-RTX parser and builder, on the CPU; no GPU is needed to build.

Twice: by NVIDIA's Python bindings, and by `rerank build` where its module was built (TRT=/path).
"""
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="no tensorrt-rtx-cu13-bindings wheel for this Python")

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("BUILD", "build")
RERANK = str(BUILD / "rerank")
LIBS = Path(importlib.util.find_spec("tensorrt_rtx_libs").origin).parent


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cal")
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"query": "capital of France", "document": d}) + "\n"
                             for d in ("Paris is the capital of France.", "法国的首都是巴黎。")))
    subprocess.run([RERANK, "calibrate", "-m", ROOT / "models/mini", "--backend", "ref", "--pairs", pairs, "-o",
                    folder / "cal.json", "--smooth", "0.7"], check=True, stdout=subprocess.DEVNULL)
    return folder / "cal.json"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_parses_and_builds(tmp_path, precision, calibration):
    onnx = tmp_path / "m.onnx"
    subprocess.run([RERANK, "export", "-m", ROOT / "models/mini", "-o", onnx, "--precision", precision,
                    *(["--calibration", calibration] if precision == "int8" else [])], check=True)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(onnx)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert [network.get_input(i).name for i in range(network.num_inputs)] == ["input_ids", "attention_mask"]
    assert [tuple(network.get_input(i).shape) for i in range(2)] == [(-1, -1)] * 2
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for i in range(2):
        profile.set_shape(network.get_input(i).name, (1, 1), (8, 128), (16, 512))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    floor = {"fp32": 130e6, "fp16": 65e6, "int8": 70e6}[precision]  # at least the weights
    assert plan is not None and plan.nbytes > floor


def test_our_shim_builds_the_same(tmp_path):
    if not (BUILD / "librerank-trt.so").exists():
        done = subprocess.run([RERANK, "build", "-m", ROOT / "models/mini", "-o", tmp_path / "e"], capture_output=True, text=True)
        assert done.returncode == 1 and "make trt TRT=/path" in done.stderr
        pytest.skip("librerank-trt.so was not built: TensorRT's headers are not here (TRT=/path)")
    engine = tmp_path / "mini.plan"
    subprocess.run([RERANK, "build", "-m", ROOT / "models/mini", "-o", engine, "--precision", "fp16", "--trt-lib", LIBS,
                    "--profile", "1x1,1x128,1x512 1x1,8x128,16x512", "--timing-cache", tmp_path / "cache"], check=True)
    manifest = json.loads(Path(f"{engine}.json").read_text())
    assert manifest["rerank_engine"] == 2 and manifest["library"].startswith("TensorRT-RTX 1.") and len(manifest["model_hash"]) == 16
    assert manifest["precision"] == "fp16" and manifest["opset"] == 17 and manifest["seconds"] > 0
    assert bool(manifest["gpu"]) == bool(manifest["cuda"]) == bool(manifest["sm"])  # of the card here, if there is one
    assert manifest["profiles"][1] == {"min": [1, 1], "opt": [8, 128], "max": [16, 512]}
    assert manifest["bytes"] == engine.stat().st_size > 65e6
    wrong = subprocess.run([RERANK, "build", "-m", ROOT / "models/mini", "-o", engine, "--trt-lib", LIBS, "--profile",
                            "8x8,4x4,1x1"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "profile 0 is not min <= opt <= max" in wrong.stderr


def run(*args, code):
    p = subprocess.run([RERANK, *map(str, args)], capture_output=True, text=True, timeout=300)
    assert p.returncode == code, p.stderr
    return p.stderr


def test_a_stale_engine_is_refused_or_rebuilt(tmp_path):
    """The model changes under an engine; --rebuild makes it anew with the same profiles and precision, through the real library."""
    if not (BUILD / "librerank-trt.so").exists():
        pytest.skip("librerank-trt.so was not built: TensorRT's headers are not here (TRT=/path)")
    engine, other = tmp_path / "tiny.plan", tmp_path / "model"
    manifest = Path(f"{engine}.json")
    trt_lib = ("--trt-lib", LIBS)
    run("build", "-m", ROOT / "tests/data/tiny-xlmr", "-o", engine, "--precision", "fp32", *trt_lib, "--profile", "1x1,2x8,4x16", code=0)
    assert "took" in run("build", "-m", ROOT / "tests/data/tiny-xlmr", "-o", engine, "--precision", "fp32", *trt_lib, "--profile",
                         "1x1,2x8,4x16", code=0)  # the estimate: what the same build took
    first, made = engine.read_bytes(), json.loads(manifest.read_text())
    shutil.copytree(ROOT / "tests/data/tiny-xlmr", other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-2] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    score = ("score", "-m", other, "--engine", engine, *trt_lib, "-q", "a", "b")
    assert "was made from other weights" in run(*score, code=1)
    assert json.loads(manifest.read_text()) == made and engine.exists()
    p = subprocess.run([RERANK, *map(str, score), "--rebuild"], capture_output=True, text=True, timeout=300)
    assert "was made from other weights" in p.stderr and " compiles " in p.stderr
    again = json.loads(manifest.read_text())
    assert again["model_hash"] != made["model_hash"] and again["profiles"] == made["profiles"] and again["precision"] == "fp32"
    assert again["bytes"] == engine.stat().st_size and engine.read_bytes() != first
    # It is right now: what is left to complain about, if anything, is the card.
    assert p.returncode == 0 or "trt:" in p.stderr.splitlines()[-1] or "TensorRT" in p.stderr.splitlines()[-1]
    mtime = engine.stat().st_mtime_ns
    p = subprocess.run([RERANK, *map(str, score), "--rebuild"], capture_output=True, text=True, timeout=300)
    assert engine.stat().st_mtime_ns == mtime and " compiles " not in p.stderr


def test_int8_takes_the_scales_of_the_models_folder(tmp_path):
    if not (BUILD / "librerank-trt.so").exists():
        pytest.skip("librerank-trt.so was not built: TensorRT's headers are not here (TRT=/path)")
    engine = tmp_path / "mini.plan"
    run("build", "-m", ROOT / "models/mini", "-o", engine, "--precision", "int8", "--trt-lib", LIBS, "--profile", "1x1,1x128,1x512", code=0)
    assert json.loads(Path(f"{engine}.json").read_text())["calibration"].endswith("models/mini/calibration.int8.json")


def test_for_another_card(tmp_path):
    if not (BUILD / "librerank-trt.so").exists():
        pytest.skip("librerank-trt.so was not built: TensorRT's headers are not here (TRT=/path)")
    build = ("build", "-m", ROOT / "tests/data/tiny-xlmr", "-o", tmp_path / "e", "--precision", "fp32", "--trt-lib", LIBS)
    said = run(*build, "--for", "sm_86", code=0)
    target = json.loads((tmp_path / "e.json").read_text())["for"]
    assert target == "sm_86" or (target == "" and "sm_86 is among the cards" in said)
    assert "is no compute capability" in run(*build, "--for", "ampere", code=2)
    assert "sm_70" in run(*build, "--for", "sm_70", code=1)

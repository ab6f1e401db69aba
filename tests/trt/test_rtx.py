"""Exported ONNX through the real TensorRT-RTX parser and builder, on the CPU; no GPU is needed to build.

Twice: by NVIDIA's Python bindings, and by `rerank build` where its module was built (TRT=/path).
"""
import importlib.util
import json
import os
import pty
import re
import shutil
import subprocess
import sys
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
    for precision, smooth in (("int8", "0.7"), ("fp8", "0")):
        subprocess.run([RERANK, "calibrate", "-m", ROOT / "models/mini", "--backend", "ref", "--pairs", pairs, "--format", precision, "-o",
                        folder / f"{precision}.json", "--smooth", smooth], check=True, stdout=subprocess.DEVNULL)
    return folder


def plan_of(onnx):
    """The engine's bytes, by NVIDIA's own bindings."""
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
    assert plan is not None
    return plan


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_parses_and_builds(tmp_path, precision, calibration):
    onnx = tmp_path / "m.onnx"
    subprocess.run([RERANK, "export", "-m", ROOT / "models/mini", "-o", onnx, "--precision", precision,
                    *(["--calibration", calibration / f"{precision}.json"] if "8" in precision else [])], check=True)
    floor = {"fp32": 130e6, "fp16": 65e6, "int8": 70e6, "fp8": 45e6}[precision]  # at least the weights
    assert plan_of(onnx).nbytes > floor


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The 24x1024 shape, and a calibration of it whose ranges are made up: only their place in the graph matters here."""
    sys.path.append(str(ROOT / "tests/onnx"))
    write_large = pytest.importorskip("large").write_large
    folder = tmp_path_factory.mktemp("large") / "model"
    write_large(folder)
    products = [{"name": f"{layer}.{role}", "amax": 4.0, "max": 4.0, "columns": 4096 if role == "ffn2" else 1024}
                for layer in range(24) for role in ("qkv", "out", "ffn1", "ffn2")]
    (folder / "cal.json").write_text(json.dumps({"rerank_calibration": 1, "format": "int8", "method": "max", "products": products}))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_24x1024_parses_and_builds(tmp_path, precision, large):
    onnx = tmp_path / "m.onnx"
    subprocess.run([RERANK, "export", "-m", large, "-o", onnx, "--precision", precision, "--external",
                    *(["--calibration", large / "cal.json"] if precision == "int8" else [])], check=True)
    weights = (tmp_path / "m.onnx.data").stat().st_size
    size = plan_of(onnx).nbytes
    (tmp_path / "m.onnx.data").unlink()
    assert size > 0.95 * weights and weights > {"fp32": 1.2e9, "fp16": 6e8, "int8": 3e8}[precision]


def on_terminal(*args):
    """Standard error of a command that sees a terminal there."""
    here, there = pty.openpty()
    p = subprocess.Popen([RERANK, *map(str, args)], stderr=there, stdout=subprocess.DEVNULL)
    os.close(there)
    said = b""
    try:
        while got := os.read(here, 4096):
            said += got
    except OSError:  # the other end is closed
        pass
    os.close(here)
    assert p.wait(300) == 0, said
    return said.decode()


def test_our_shim_builds_the_same(tmp_path):
    if not (BUILD / "librerank-trt.so").exists():
        done = subprocess.run([RERANK, "build", "-m", ROOT / "models/mini", "-o", tmp_path / "e"], capture_output=True, text=True)
        assert done.returncode == 1 and "make trt TRT=/path" in done.stderr
        pytest.skip("librerank-trt.so was not built: TensorRT's headers are not here (TRT=/path)")
    engine = tmp_path / "mini.plan"
    said = on_terminal("build", "-m", ROOT / "models/mini", "-o", engine, "--precision", "fp16", "--trt-lib", LIBS, "--profile",
                       "1x1,1x128,1x512 1x1,8x128,16x512", "--timing-cache", tmp_path / "cache", "--workspace", "512")
    shares = [float(x) for x in re.findall(r"building +([0-9.]+) %  [0-9]+ s, [0-9]+ s left", said)]
    assert shares == sorted(shares) and len(set(shares)) > 1, said  # progress, and what is left
    manifest = json.loads(Path(f"{engine}.json").read_text())
    assert manifest["rerank_engine"] == 2 and manifest["library"].startswith("TensorRT-RTX 1.") and len(manifest["model_hash"]) == 16
    assert manifest["precision"] == "fp16" and manifest["opset"] == 17 and manifest["seconds"] > 0
    assert bool(manifest["gpu"]) == bool(manifest["cuda"]) == bool(manifest["sm"])  # of the card here, if there is one
    assert manifest["profiles"][1] == {"min": [1, 1], "opt": [8, 128], "max": [16, 512]}
    assert manifest["bytes"] == engine.stat().st_size > 65e6 and manifest["workspace"] == 512 << 20
    assert (tmp_path / "cache").stat().st_size > 0
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
    manifest = json.loads((tmp_path / "e.json").read_text())
    assert [p["opt"] for p in manifest["profiles"]] == [[1, 128], [8, 512], [16, 512], [100, 180]]  # what is built unasked
    assert [p["max"] for p in manifest["profiles"]] == [[1, 512], [8, 512], [16, 512], [100, 256]]
    target = manifest["for"]
    assert target == "sm_86" or (target == "" and "sm_86 is among the cards" in said)
    assert "is no compute capability" in run(*build, "--for", "ampere", code=2)
    assert "sm_70" in run(*build, "--for", "sm_70", code=1)

"""Exported ONNX through the real TensorRT-RTX parser and builder, on the CPU; no GPU is needed to build.

Twice: by NVIDIA's Python bindings, and by `rerank build` where its module was built (TRT=/path).
"""
import importlib.util
import json
import os
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
    assert manifest["library"].startswith("TensorRT-RTX 1.") and len(manifest["model_hash"]) == 16
    assert manifest["profiles"][1] == {"min": [1, 1], "opt": [8, 128], "max": [16, 512]}
    assert manifest["bytes"] == engine.stat().st_size > 65e6
    wrong = subprocess.run([RERANK, "build", "-m", ROOT / "models/mini", "-o", engine, "--trt-lib", LIBS, "--profile",
                            "8x8,4x4,1x1"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "profile 0 is not min <= opt <= max" in wrong.stderr

"""`rerank export` against the onnx package's checker and ONNX Runtime, and those against HF's logits.

The truth files (written by tools/oracle.py with transformers) hold ids and fp32 logits of ragged pairs.
"""
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime as ort
import pytest
from large import write_huge, write_large
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
RERANK = str(ROOT / os.environ.get("BUILD", "build") / "rerank")
REF = str(ROOT / os.environ.get("BUILD", "build") / "tests/onnx/ids_ref")
DATA = ROOT / "tests/data"
NEWEST = 28  # of the exporter; what this ONNX Runtime runs is found by asking it


def export(model, path, *flags):
    subprocess.run([RERANK, "export", "-m", model, "-o", path, *flags], check=True)
    found = subprocess.run([RERANK, "check", "--json", path], capture_output=True, text=True)
    report = json.loads(found.stdout)
    assert found.returncode == 0 and report["ok"] and not report["findings"], report
    return report


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def truth(path):
    t = load_file(DATA / path)
    cu = t["cu"]
    return [t["ids"][cu[i]:cu[i + 1]] for i in range(len(cu) - 1)], t["seg"], t["logits"].ravel()


def padded(seqs, segs, names, pad):
    """Right-padded feeds of a list of sequences."""
    n = max(map(len, seqs))
    ids = np.full((len(seqs), n), pad, np.int64)
    mask = np.zeros((len(seqs), n), np.int64)
    types = np.zeros((len(seqs), n), np.int64)
    for i, s in enumerate(seqs):
        ids[i, :len(s)], mask[i, :len(s)], types[i, segs[i]:len(s)] = s, 1, 1
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {k: v for k, v in feeds.items() if k in names}


def run(sess, seqs, segs, size, pad):
    names = [i.name for i in sess.get_inputs()]
    out = []
    for i in range(0, len(seqs), size):
        out.append(sess.run(["logits"], padded(seqs[i:i + size], segs[i:i + size], names, pad))[0].ravel())
    return np.concatenate(out)


def test_the_newest_opset_is_onnx_runtimes(tmp_path):
    """The exporter goes as far as this ONNX Runtime does."""
    known = onnx.defs.onnx_opset_version()
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT)], "g", [value], [out])
    runs = []
    for opset in range(NEWEST, known + 1):
        model = onnx.helper.make_model_gen_version(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        try:
            ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            runs.append(opset)
        except Exception as e:
            assert "opset" in str(e).lower() or "ir version" in str(e).lower(), e
    assert max(runs, default=NEWEST) == NEWEST, "tools/onnx_ops.py, then RR__ONNX_OPSET_MAX"
    done = subprocess.run([RERANK, "export", "-m", DATA / "tiny-xlmr", "-o", tmp_path / "m.onnx", "--opset", str(NEWEST + 1)],
                          capture_output=True, text=True)
    assert done.returncode == 2 and f"{NEWEST}" in done.stderr


@pytest.mark.parametrize("opset", [13, 17, NEWEST])
def test_mini_equals_hf(tmp_path, opset):
    path = tmp_path / "mini.onnx"
    export(ROOT / "models/mini", path, "--opset", str(opset))
    onnx.checker.check_model(str(path), full_check=True)
    onnx.shape_inference.infer_shapes_path(str(path), str(tmp_path / "inferred.onnx"), strict_mode=True)
    seqs, segs, want = truth("mini-truth.safetensors")
    sess = session(path)
    assert [(i.name, i.type, i.shape) for i in sess.get_inputs()] == [
        (name, "tensor(int64)", ["batch_size", "sequence_length"]) for name in ("input_ids", "attention_mask")]
    assert [(o.name, o.type, o.shape) for o in sess.get_outputs()] == [("logits", "tensor(float)", ["batch_size", 1])]
    kinds = [n.op_type for n in onnx.load(str(path)).graph.node]
    assert kinds.count("LayerNormalization") == (25 if opset >= 17 else 0)  # single operators where the opset has them
    assert (kinds.count("Gelu"), kinds.count("Erf")) == ((12, 0) if opset >= 20 else (0, 12))
    keep = range(0, len(seqs), 7)
    seqs, segs, want = [seqs[i] for i in keep], segs[::7], want[::7]
    for size in (1, 7, len(seqs)):
        assert np.abs(run(sess, seqs, segs, size, 1) - want).max() < 1e-4


@pytest.mark.parametrize("name,pad", [("tiny-xlmr", 1), ("tiny-bert", 0)])
@pytest.mark.parametrize("opset", range(13, NEWEST + 1))
def test_tiny_models(tmp_path, name, pad, opset):
    path = tmp_path / "tiny.onnx"
    export(DATA / name, path, "--opset", str(opset))
    onnx.checker.check_model(str(path), full_check=True)
    seqs, segs, want = truth(f"{name}/truth.safetensors")
    for size in (1, 5, len(seqs)):
        assert np.abs(run(session(path), seqs, segs, size, pad) - want).max() < 1e-4


def test_external_data_holds_each_weight_once(tmp_path):
    path = tmp_path / "mini.onnx"
    report = export(ROOT / "models/mini", path, "--external", "--precision", "fp16")
    data = (tmp_path / "mini.onnx.data").stat().st_size
    assert path.stat().st_size < 1 << 20
    assert report["weight_bytes"] <= data < report["weight_bytes"] + 200 * 4096  # padding only
    seqs, segs, want = truth("mini-truth.safetensors")
    assert np.abs(run(session(path), seqs[:6], segs[:6], 3, 1) - want[:6]).max() < 3e-2
    folder = load_file(ROOT / "models/mini/model.safetensors")
    model = onnx.load(str(path), load_external_data=False)
    small = sum(np.prod(t.dims, dtype=int) for t in model.graph.initializer if not t.external_data)
    assert small < 100 and report["weight_bytes"] < 2 * sum(t.size for t in folder.values()) + 8 * small


def test_metadata(tmp_path):
    """Whose model this is: name, revision, and the hash that calibrations and engines of it carry."""
    path = tmp_path / "mini.onnx"
    export(ROOT / "models/mini", path, "--name", "me/mini", "--revision", "abc123")
    meta = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert meta == {"model_name": "me/mini", "revision": "abc123", "architecture": "XLMRobertaForSequenceClassification",
                    "max_length": "512", "quantization": "float", "hash": json.loads(calibrate(tmp_path).read_text())["hash"]}
    export(ROOT / "models/mini", path)
    meta = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert meta["model_name"].endswith("models/mini") and "revision" not in meta


def test_bf16_is_well_formed(tmp_path):
    path = tmp_path / "mini.onnx"
    export(ROOT / "models/mini", path, "--precision", "bf16")
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.parametrize("name,pad", [("tiny-xlmr", 1), ("tiny-bert", 0)])
@pytest.mark.parametrize("opset", [13, 17, NEWEST])
def test_bf16_computes_the_same_model(tmp_path, name, pad, opset):
    """ONNX Runtime has no bf16 on CPUs; onnx's own evaluator, operator by operator in NumPy, has."""
    path = tmp_path / "tiny.onnx"
    export(DATA / name, path, "--precision", "bf16", "--opset", str(opset))
    onnx.checker.check_model(str(path), full_check=True)
    seqs, segs, want = truth(f"{name}/truth.safetensors")
    evaluate = onnx.reference.ReferenceEvaluator(str(path))
    feeds = padded(seqs[:4], segs[:4], evaluate.input_names, pad)
    error = np.abs(evaluate.run(["logits"], feeds)[0].ravel() - want[:4]).max()
    assert 1e-3 < error < 0.15, error  # its sums are in bf16, too; the logits spread by 1.7


def test_all_outputs_are_hf_hidden_states(tmp_path):
    path = tmp_path / "mini.onnx"
    export(ROOT / "models/mini", path, "--all-outputs")
    t = load_file(DATA / "mini-truth.safetensors")
    seq = t["ids"][:t["cu"][1]]
    sess = session(path)
    feeds = padded([seq], [len(seq)], ["input_ids", "attention_mask"], 1)
    for name in ("emb", "2.ln2", "5.ln2", "8.ln2", "11.ln2"):
        assert np.abs(sess.run([name], feeds)[0][0] - t[name][:len(seq)]).max() < 1e-4, name


def test_24x1024_equals_ref(tmp_path):
    """The large shape: ONNX Runtime's logits against our own reference, which CI checks against HF."""
    write_large(tmp_path / "large")
    rng = np.random.default_rng(1)
    seqs = [np.concatenate([[0], rng.integers(5, 1999, n), [2]]) for n in (1, 12, 30)]
    lines = "".join(" ".join(map(str, s)) + "\n" for s in seqs)
    out = subprocess.run([REF, tmp_path / "large"], input=lines, capture_output=True, text=True, check=True).stdout
    want = np.array([float(x) for x in out.split()])
    assert np.ptp(want) > 0.05  # the random model does tell its inputs apart
    for opset in (13, 17, NEWEST):
        export(tmp_path / "large", tmp_path / "large.onnx", "--external", "--opset", str(opset))
        sess = session(tmp_path / "large.onnx")
        for size in (1, 3):  # alone and in company: lengths 3, 14 and 32
            got = run(sess, seqs, [len(s) for s in seqs], size, 1)
            assert np.abs(got - want).max() < 1e-4, (opset, size)


def test_above_2_gb_the_weights_lie_beside(tmp_path):
    """Unasked: no protobuf message can hold them. Offsets past 2^31 are read back by ONNX Runtime and our own check."""
    if shutil.disk_usage(tmp_path).free < 8 << 30:
        pytest.skip("skip: no 8 GB free for a model of 2.3 GB and its export")
    rows = write_huge(tmp_path / "huge")
    seqs = [np.array([0, 5, rows - 1, 99, rows - 100, 2]), np.array([0, rows - 50, 2])]
    lines = "".join(" ".join(map(str, s)) + "\n" for s in seqs)
    out = subprocess.run([REF, tmp_path / "huge"], input=lines, capture_output=True, text=True, check=True).stdout
    path = tmp_path / "huge.onnx"
    report = export(tmp_path / "huge", path)
    data = tmp_path / "huge.onnx.data"
    try:
        assert path.stat().st_size < 1 << 20 and data.stat().st_size >= report["weight_bytes"] - (1 << 16) > 2 << 30
        model = onnx.load(str(path), load_external_data=False)
        offsets = [int(e.value) for t in model.graph.initializer for e in t.external_data if e.key == "offset"]
        assert max(offsets) > 2 << 30
        onnx.checker.check_model(str(path))
        got = run(session(path), seqs, [len(s) for s in seqs], 2, 1)
        assert np.abs(got - [float(x) for x in out.split()]).max() < 1e-4
        os.truncate(data, data.stat().st_size - 1)
        found = subprocess.run([RERANK, "check", path], capture_output=True, text=True)
        assert found.returncode == 1 and "end past" in found.stdout
    finally:
        data.unlink()
        (tmp_path / "huge/model.safetensors").unlink()


@pytest.mark.parametrize("name,pad", [("tiny-xlmr", 1), ("tiny-bert", 0), ("mini", 1)])
@pytest.mark.parametrize("opset", [13, 17, NEWEST])
def test_equals_what_pytorch_exports(tmp_path, name, pad, opset):
    """PyTorch's exporters on the same folder: the same inputs, and logits equal to the last places of fp32. At the newest
    opset it is the one over torch.export (with onnxscript), which goes to 23, elsewhere the one that traces, to 20."""
    torch = pytest.importorskip("torch", reason="skip: PyTorch's exporters need torch and transformers, the newer one onnxscript")
    transformers = pytest.importorskip("transformers")
    folder = ROOT / "models/mini" if name == "mini" else DATA / name
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    seqs, segs, _ = truth("mini-truth.safetensors" if name == "mini" else f"{name}/truth.safetensors")
    if name == "mini":
        seqs, segs = seqs[::9], segs[::9]
    export(folder, tmp_path / "ours.onnx", "--opset", str(opset))
    ours = session(tmp_path / "ours.onnx")
    names = [i.name for i in ours.get_inputs()]
    shown = {k: torch.from_numpy(v) for k, v in padded(seqs[:2], segs[:2], names, pad).items()}
    export_with = {"kwargs": shown, "input_names": names, "output_names": ["logits"]}
    if opset == NEWEST and importlib.util.find_spec("onnxscript"):
        torch.onnx.export(model, (), tmp_path / "torch.onnx", **export_with, dynamo=True, opset_version=23,
                          dynamic_shapes={k: {0: "b", 1: "n"} for k in names})
    else:
        torch.onnx.export(model, (), tmp_path / "torch.onnx", **export_with, dynamo=False, opset_version=min(opset, 20),
                          dynamic_axes={k: {0: "b", 1: "n"} for k in names})
    theirs = session(tmp_path / "torch.onnx")
    assert {i.name for i in theirs.get_inputs()} == set(names)
    for size in (1, 5, len(seqs)):
        assert np.abs(run(ours, seqs, segs, size, pad) - run(theirs, seqs, segs, size, pad)).max() < 1e-5


def calibrate(tmp_path, *flags):
    """A calibration of the embedded model from a few short pairs."""
    pairs = tmp_path / "pairs.jsonl"
    texts = ["Paris is the capital of France.", "法国的首都是巴黎。", "El Sena es un río.", "Der Hund schläft."]
    pairs.write_text("".join(json.dumps({"query": "capital of France", "document": t}) + "\n" for t in texts))
    path = tmp_path / "cal.json"
    subprocess.run([RERANK, "calibrate", "--backend", "cpu", "--pairs", pairs, "-o", path, *flags], check=True,
                   stdout=subprocess.DEVNULL)
    return path


@pytest.mark.parametrize("precision,flags,limit", [
    ("int8", ["--smooth", "0.7"], 1.5), ("int8", ["--smooth", "0.7", "--keep", "30", "--measured", "4"], 1.0), ("fp8", ["--format", "fp8"], 1.5)])
def test_quantized_export_runs(tmp_path, precision, flags, limit):
    path = tmp_path / "q.onnx"
    cal = calibrate(tmp_path, *flags)
    export(ROOT / "models/mini", path, "--precision", precision, "--calibration", cal)
    onnx.checker.check_model(str(path), full_check=True)
    seqs, segs, want = truth("mini-truth.safetensors")
    got = run(session(path), seqs[:8], segs[:8], 1, 1)
    errors = np.abs(got - want[:8])
    assert 1e-6 < errors.max() < limit  # it is quantized, and still the same model
    kinds = [n.op_type for n in onnx.load(str(path)).graph.node]
    kept = 30 if "--keep" in flags else 0
    assert kinds.count("QuantizeLinear") == 48 - kept and kinds.count("DequantizeLinear") == 2 * (48 - kept)


def test_cpu_computes_what_the_export_says(tmp_path):
    """One calibration file, two engines: our int8 kernels and ONNX Runtime on the exported Q/DQ pairs err alike,
    and by more than they differ (bf16 outside the quantized products is what they differ by)."""
    cal = calibrate(tmp_path, "--smooth", "0.7", "--keep", "30", "--measured", "4")
    export(ROOT / "models/mini", tmp_path / "q.onnx", "--precision", "int8", "--calibration", cal)
    pairs = tmp_path / "more.jsonl"
    with open(ROOT / "models/mini/eval/xquad-en/queries.jsonl", encoding="utf-8") as q, \
            open(ROOT / "models/mini/eval/xquad-en/corpus.jsonl", encoding="utf-8") as d:
        lines = [json.dumps({"query": json.loads(a)["text"], "document": json.loads(b)["text"][:400]})
                 for a, b, _ in zip(q, d, range(24))]
    pairs.write_text("\n".join(lines) + "\n")

    def bulk(command, *flags):
        done = subprocess.run([RERANK, command, "--pairs", pairs, *flags], check=True, capture_output=True, text=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def logits(*flags):
        return np.array([r["score"] for r in bulk("score", "--raw", "--backend", "cpu", *flags)])

    seqs = [np.array(r["ids"]) for r in bulk("tokenize")]
    exact, ours = logits("--precision", "fp32"), logits("--precision", "int8", "--calibration", cal)
    theirs = run(session(tmp_path / "q.onnx"), seqs, [len(s) for s in seqs], 1, 1)
    error = np.abs(theirs - exact).mean()
    assert error > 0.02 and np.abs(ours - theirs).mean() < error / 2, (error, np.abs(ours - theirs).mean())


@pytest.mark.parametrize("flags,spoil,say", [
    (["--precision", "bf16"], None, "--precision int8"),
    (["--precision", "int8"], ('"format":"int8"', '"format":"fp8"'), "not int8"),
    (["--precision", "int8"], ('"hash":"', '"hash":"0'), "other weights"),
    (["--precision", "int8"], ('"7.ffn1"', '"7.ffn9"'), "7.ffn1")])
def test_a_calibration_that_does_not_fit_is_refused(tmp_path, flags, spoil, say):
    cal = calibrate(tmp_path)
    if spoil:
        text = cal.read_text()
        assert spoil[0] in text
        cal.write_text(text.replace(spoil[0], spoil[1], 1))
    done = subprocess.run([RERANK, "score", "--backend", "cpu", "--calibration", cal, *flags, "-q", "a", "b"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and say in done.stderr, done.stderr


def test_compare_with_onnx_runtime(tmp_path):
    """The documented way: dump ids, observe with ONNX Runtime, compare; a spoilt tensor is named."""
    pairs, ids, out = tmp_path / "p.jsonl", tmp_path / "ids.txt", tmp_path / "o.safetensors"
    pairs.write_text('{"query": "capital of France", "document": "Paris is the capital."}\n{"query": "a", "document": "b"}\n')
    export(ROOT / "models/mini", tmp_path / "m.onnx", "--all-outputs")
    compare = [RERANK, "compare", "-m", ROOT / "models/mini", "--pairs", pairs, "--json"]
    page = tmp_path / "depth.html"
    subprocess.run([*compare, "--b", "ref", "--dump-ids", ids], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, ROOT / "tools/ort_observe.py", tmp_path / "m.onnx", ids, out], check=True)
    svg = tmp_path / "depth.svg"
    done = subprocess.run([*compare, "--b", f"file:{out}", "--svg", svg], capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["first_past"] is None
    assert len(report["activations"]) == 1 + 7 * 12 + 2 and max(a["relative_l2"] for a in report["activations"]) < 1e-4
    xml.etree.ElementTree.parse(svg)
    tensors = load_file(out)
    # Either side may be the file: the other is held against ONNX Runtime, or two of its runs against each other.
    done = subprocess.run([*compare, "--a", f"file:{out}", "--b", "cpu:fp32"], capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["b"] == "cpu:fp32" and len(report["activations"]) == 1 + 7 * 12 + 2
    spoilt = tmp_path / "spoilt.safetensors"
    save_file({k: v + (k == "3.ln1") for k, v in tensors.items()}, spoilt)
    done = subprocess.run([*compare, "--a", f"file:{out}", "--b", f"file:{spoilt}", "--html", page, "--svg", svg],
                          capture_output=True, text=True)
    report = json.loads(done.stdout)
    names = [a["name"] for a in report["activations"]]
    assert done.returncode == 1 and report["first_past"] == "3.ln1" and names[:3] == ["emb", "0.qkv", "0.ctx"] and names[-1] == "logits"
    assert {a["name"] for a in report["activations"] if a["relative_l2"] > 0} == {"3.ln1"}
    tree = xml.etree.ElementTree.fromstring(page.read_text().split("\n", 1)[1])
    rows = [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]
    assert [r[0] for r in rows[1:]] == names and "&" not in rows[1][4] and rows[1][4].startswith("(0, 0)")
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}polyline"))) == 7 and "first past it: 3.ln1" in page.read_text()
    assert [r.get("class") for r in tree.iter("tr")].count("past") == 1
    bisect = [*compare, "--a", f"file:{out}", "--b", "cpu:int8", "--bisect", "1000"]
    assert json.loads(subprocess.run(bisect, capture_output=True, text=True, check=True).stdout)["keep"] == []
    save_file({"emb": tensors["emb"][:3], "0.qkv": tensors["0.qkv"][:, :7].copy(), "logits": tensors["head"]}, spoilt)
    for flags, says in ((["--b", "cpu:fp32"], "no activation of B has a counterpart in A"),
                        (["--b", "cpu:int8", "--bisect", "1"], "has no logits of these pairs")):
        done = subprocess.run([*compare, "--a", f"file:{spoilt}", *flags], capture_output=True, text=True)
        assert done.returncode == 1 and says in done.stderr, done.stderr
    tensors["7.ffn_mid"][3, 100] += 5
    save_file(tensors, out)
    done = subprocess.run([*compare, "--b", f"file:{out}"], capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["first_past"] == "7.ffn_mid"
    worst = next(a for a in report["activations"] if a["name"] == "7.ffn_mid")
    assert (worst["worst_pair"], worst["worst_position"]) == (0, 3) and abs(worst["max_abs"] - 5) < 1e-3

#!/usr/bin/env python3
"""peers.py - PyTorch and ONNX Runtime on the work of `rerank bench --table --work FILE`.

    python bench/peers.py work.json -o peers.json [--rerank build/rerank] [--threads N] [--only "ONNX Runtime"]

Runs the request's token ids through every engine that this Python has, sorted by length and in the batch size that is best
for it, in each precision its device computes; then the judged pairs once, for their logits. Writes a row for each, or
why there is none, for `rerank bench --table --with peers.json`."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cpu import batches

ROOT = Path(__file__).resolve().parent.parent
SIZES = [1, 4, 8, 32, 128]


def logits(call, seqs, size, pad):
    out = np.zeros(len(seqs))
    for part, ids, mask in batches(seqs, size, pad):
        out[part] = call(ids, mask)
    return out


def measure(work, call, pad):
    """The best batch size by one pass each, then times of whole requests with it, and the judged logits."""
    request = list(work["request"])
    best = None
    for size in SIZES:
        if best and size > len(request):
            break
        for warm in (1, 0):
            start = time.perf_counter()
            logits(call, request, size, pad)
            took = time.perf_counter() - start
        if best and took > best[0]:
            break
        best = (took, size)
    for _ in range(work["warmup"]):
        logits(call, request, best[1], pad)
    ms, begin = [], time.perf_counter()
    while len(ms) < work["repeat"] and time.perf_counter() - begin < work["seconds"]:
        start = time.perf_counter()
        logits(call, request, best[1], pad)
        ms.append(1e3 * (time.perf_counter() - start))
    judged = logits(call, work["judged"], best[1], pad) if work["judged"] else []
    return {"batch": best[1], "ms": ms, "logits": [float(x) for x in judged]}


def of_torch(args, work, pad):
    import torch
    import transformers
    torch.set_num_threads(args.threads)
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else f"CPU, {args.threads} threads"
    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        row = {"engine": f"PyTorch {torch.__version__.split('+')[0]}", "precision": precision, "device": device}
        if precision == "fp16" and not cuda:
            yield {**row, "why": "measured on a GPU only; bf16 is a CPU's half"}
            continue
        net = transformers.AutoModelForSequenceClassification.from_pretrained(
            work["model"], dtype=dtype, attn_implementation="sdpa").eval().to("cuda" if cuda else "cpu")

        def call(ids, mask, net=net):
            with torch.inference_mode():
                to = net.device
                return net(input_ids=torch.from_numpy(ids).to(to), attention_mask=torch.from_numpy(mask).to(to)
                           ).logits[:, 0].float().cpu().numpy()
        yield {**row, **measure(work, call, pad)}


def of_onnxruntime(args, work, pad):
    import onnxruntime as ort
    cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    for precision in ("fp32", "fp16") if cuda else ("fp32",):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            subprocess.run([args.rerank, "export", "-m", work["model"], "-o", path, "--precision", precision], check=True,
                           stdout=subprocess.DEVNULL)
            session = ort.InferenceSession(path, options, providers=["CUDAExecutionProvider"] if cuda else ["CPUExecutionProvider"])

        def call(ids, mask, session=session):
            return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0][:, 0]
        yield {"engine": f"ONNX Runtime {ort.__version__}", "precision": precision,
               "device": "CUDA" if cuda else f"CPU, {args.threads} threads", **measure(work, call, pad)}


ENGINES = {"PyTorch": of_torch, "ONNX Runtime": of_onnxruntime}


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("work", type=Path)
    ap.add_argument("-o", "--output", type=Path, required=True)
    ap.add_argument("--rerank", default=ROOT / "build/rerank")
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--only", choices=ENGINES, help="this engine alone")
    args = ap.parse_args()
    work = json.loads(args.work.read_text())
    pad = json.loads((Path(work["model"]) / "config.json").read_text()).get("pad_token_id", 0)
    rows = []
    for name, run in ENGINES.items():
        if args.only not in (None, name):
            continue
        try:
            for row in run(args, work, pad):
                rows.append(row)
                print(row["engine"], row["precision"], row.get("why") or f"{sorted(row['ms'])[len(row['ms']) // 2]:.1f} ms",
                      file=sys.stderr, flush=True)
        except Exception as e:  # a missing wheel, a card too small: the table says so
            rows.append({"engine": name, "precision": "", "why": f"{type(e).__name__}: {e}".splitlines()[0][:200]})
    args.output.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()

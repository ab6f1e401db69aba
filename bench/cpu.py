#!/usr/bin/env python3
"""cpu.py [--model DIR] [--docs 100] [--only ours,torch,ort,openvino,llama] - us and the peers on the CPU.

The same ragged documents (lognormal, mean 180 tokens) through every engine in one run on all cores;
peers get them sorted by length, padded within a batch, at the best of several batch sizes. Ours
gets them as one flat batch in the given order. Tokens a second count real tokens only.

OpenVINO's int8 needs nncf. llama.cpp needs llama-cpp-python and --gguf DIR with NAME-f32.gguf, NAME-bf16.gguf,
NAME-q8_0.gguf of the model folder's NAME, written by llama.cpp's convert_hf_to_gguf.py. Where oneDNN's header is in PYENV the
share of its plain matmul rate is printed too."""
import argparse
import json
import math
import os
import platform
import random
import subprocess
import time
from pathlib import Path

import numpy as np

BUILD = Path(os.environ.get("BUILD", "build"))
WORK = BUILD / "bench"
SEED = 1


def documents(n, vocab):
    """Lengths as in every other bench; ids at random behind <s>, </s> at the end."""
    random.seed(SEED)
    lengths = [min(512, max(24, int(random.lognormvariate(math.log(160), 0.6)))) for _ in range(n)]
    rng = np.random.default_rng(SEED)
    return [np.concatenate([[0], rng.integers(5, vocab, k - 2), [2]]).astype(np.int64)
            for k in lengths]


def batches(seqs, size, pad=1):
    """Right-padded (indices, ids, mask), shortest first."""
    order = sorted(range(len(seqs)), key=lambda i: len(seqs[i]))
    for first in range(0, len(order), size):
        part = order[first:first + size]
        ids = np.full((len(part), max(len(seqs[i]) for i in part)), pad, np.int64)
        mask = np.zeros_like(ids)
        for row, i in enumerate(part):
            ids[row, :len(seqs[i])], mask[row, :len(seqs[i])] = seqs[i], 1
        yield part, ids, mask


def timed(seqs, call, sizes, repeat):
    """Best seconds over batch sizes, that size, and the logits."""
    best, at, logits = 1e9, 0, np.zeros(len(seqs))
    for size in sizes:
        todo = list(batches(seqs, size))
        for _ in range(repeat + 1):
            start = time.perf_counter()
            for part, ids, mask in todo:
                logits[part] = call(ids, mask)
            seconds = time.perf_counter() - start
            if seconds < best:
                best, at = seconds, size
    return best, at, logits.copy()


def ours(args, seqs):
    path = WORK / "sequences.i32"
    cu = np.cumsum([0] + [len(s) for s in seqs])
    np.concatenate([[len(seqs)], cu, np.concatenate(seqs)]).astype(np.int32).tofile(path)
    for precision in ("fp32", "bf16", "int8"):
        out = subprocess.run([WORK / "cpu_engine", args.model, path, precision, str(args.threads),
                              str(args.repeat)], check=True, capture_output=True, text=True)
        first, *logits = out.stdout.splitlines()
        seconds, device = first.split(" ", 1)
        yield f"rerank.c ({device})", precision, float(seconds), "-", np.array(logits, float)


def torch_model(args):
    import torch
    import transformers
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation="sdpa")
    return model.eval()


def of_torch(args, seqs):
    import torch
    model = torch_model(args)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        net = model.to(dtype)

        def call(ids, mask, net=net):
            with torch.inference_mode():
                out = net(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
            return out.logits.float().numpy()[:, 0]
        yield f"torch {torch.__version__} sdpa", precision, *timed(seqs, call, args.sizes, args.repeat)


def onnx_file(args):
    """By PyTorch's exporter; past its 2 GiB by ours."""
    import torch
    path = WORK / f"{Path(args.model).name}.onnx"
    if not path.exists() and (Path(args.model) / "model.safetensors").stat().st_size > 2**31:
        subprocess.run([BUILD / "rerank", "export", "-m", args.model, "-o", path, "--opset", "17"], check=True)
    if not path.exists():
        ids = torch.ones(2, 16, dtype=torch.long) * 7
        model = torch_model(args)
        model.config._attn_implementation = "eager"
        torch.onnx.export(model, (ids, torch.ones_like(ids)), path, dynamo=False, opset_version=17,
                          input_names=["input_ids", "attention_mask"], output_names=["logits"],
                          dynamic_axes={k: {0: "b", 1: "n"} for k in ("input_ids", "attention_mask")})
    return path


def of_ort(args, seqs):
    import onnxruntime as ort
    from onnxruntime.quantization import quantize_dynamic
    small = WORK / f"{Path(args.model).name}.int8.onnx"
    if not small.exists():
        quantize_dynamic(onnx_file(args), small, per_channel=True,
                         use_external_data_format=onnx_file(args).with_suffix(".onnx.data").exists())
    for precision, path in (("fp32", onnx_file(args)), ("int8", small)):
        opts = ort.SessionOptions()
        opts.intra_op_num_threads = args.threads
        session = ort.InferenceSession(path, opts, providers=["CPUExecutionProvider"])

        def call(ids, mask, session=session):
            return session.run(None, {"input_ids": ids, "attention_mask": mask})[0][:, 0]
        yield f"ONNX Runtime {ort.__version__}", precision, *timed(seqs, call, args.sizes, args.repeat)


def openvino_int8(core, args, seqs):
    """Post-training quantization by nncf, its preset for transformers, calibrated on the documents."""
    import nncf
    shown = [[ids, mask] for _, ids, mask in batches(seqs, 4)]
    return nncf.quantize(core.read_model(onnx_file(args)), nncf.Dataset(shown),
                         model_type=nncf.ModelType.TRANSFORMER, subset_size=len(shown))


def of_openvino(args, seqs):
    import openvino
    core = openvino.Core()
    for precision, kind in (("fp32", "f32"), ("bf16", "bf16"), ("int8", "f32")):
        net = openvino_int8(core, args, seqs) if precision == "int8" else core.read_model(onnx_file(args))
        net = core.compile_model(net, "CPU", {
            "INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": args.threads})

        def call(ids, mask, net=net):
            return next(iter(net([ids, mask]).values()))[:, 0]
        yield (f"OpenVINO {openvino.__version__.split('-')[0]}", precision,
               *timed(seqs, call, args.sizes, args.repeat))


def of_llama(args, seqs):
    import llama_cpp as ll
    quiet = ll.llama_log_callback(lambda *_: None)  # llama.cpp keeps the pointer: so must we
    ll.llama_log_set(quiet, None)
    tokens, longest = sum(map(len, seqs)), max(map(len, seqs))
    for precision, kind in (("fp32", "f32"), ("bf16", "bf16"), ("int8", "q8_0")):
        path = Path(args.gguf) / f"{Path(args.model).name}-{kind}.gguf"
        model = ll.llama_model_load_from_file(str(path).encode(), ll.llama_model_default_params())
        if not model:
            raise FileNotFoundError(path)
        best, at, logits = 1e9, 0, np.zeros(len(seqs))
        for size in args.sizes:
            params = ll.llama_context_default_params()
            params.n_ctx = params.n_batch = params.n_ubatch = size * longest
            params.n_seq_max = size
            params.n_threads = params.n_threads_batch = args.threads
            params.embeddings = True
            params.pooling_type = ll.LLAMA_POOLING_TYPE_RANK
            context = ll.llama_init_from_model(model, params)
            batch = ll.llama_batch_init(min(tokens, size * longest), 0, 1)
            order = sorted(range(len(seqs)), key=lambda i: len(seqs[i]))
            for _ in range(args.repeat + 1):
                start = time.perf_counter()
                for first in range(0, len(order), size):
                    part, n = order[first:first + size], 0
                    for row, i in enumerate(part):
                        for position, token in enumerate(seqs[i].tolist()):
                            batch.token[n], batch.pos[n] = token, position
                            batch.n_seq_id[n], batch.seq_id[n][0], batch.logits[n] = 1, row, 1
                            n += 1
                    batch.n_tokens = n
                    if ll.llama_encode(context, batch):
                        raise RuntimeError("llama_encode failed")
                    for row, i in enumerate(part):
                        logits[i] = ll.llama_get_embeddings_seq(context, row)[0]
                seconds = time.perf_counter() - start
                if seconds < best:
                    best, at = seconds, size
            ll.llama_batch_free(batch)
            ll.llama_free(context)
        ll.llama_model_free(model)
        yield f"llama.cpp ({ll.__version__} of its Python package) {kind}", precision, best, at, logits.copy()


ENGINES = {"ours": ours, "torch": of_torch, "ort": of_ort, "openvino": of_openvino, "llama": of_llama}


def operations(model, seqs):
    """What a pass has to compute: two a multiplication of a linear layer and of attention; of the last layer
    keys and values only."""
    c = json.loads((Path(model) / "config.json").read_text())
    d, f, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    tokens, squares = sum(map(len, seqs)), sum(len(s) ** 2 for s in seqs)
    return (layers - 1) * (tokens * 2 * (4 * d * d + 2 * d * f) + 4 * d * squares) + tokens * 4 * d * d, d, f


def matmul_rates(args, d, f):
    """oneDNN's plain matmul, operations a second by precision, for the model's first feed-forward."""
    program = WORK / "onednn_rate"
    if not program.exists():
        return {}
    out = subprocess.run([program, str(f), str(d)], check=True, capture_output=True, text=True,
                         env={**os.environ, "OMP_NUM_THREADS": str(args.threads)}).stdout
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()}


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", default="models/mini")
    ap.add_argument("--docs", type=int, default=100)
    ap.add_argument("--vocab", type=int, default=34000)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--repeat", type=int, default=2)
    ap.add_argument("--sizes", type=lambda s: [int(x) for x in s.split(",")], default=[1, 4, 8])
    ap.add_argument("--only", default="ours,torch,ort,openvino")
    ap.add_argument("--gguf", default=str(WORK), help="folder of NAME-f32.gguf and so on, for llama")
    args = ap.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    seqs = documents(args.docs, args.vocab)
    tokens = sum(map(len, seqs))
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
               platform.machine())
    print(f"{args.model}: {args.docs} documents, {tokens:,} tokens, seed {SEED}; {cpu}, "
          f"{args.threads} threads; best of {args.repeat} after a warm-up", flush=True)
    rows, truth = [], None
    print(f"{'engine':<44} {'precision':<9} {'batch':>5} {'tokens/s':>9}  largest logit difference")
    for name in args.only.split(","):
        try:
            for engine, precision, seconds, at, logits in ENGINES[name](args, seqs):
                truth = logits if truth is None else truth
                rows.append((name, precision, tokens / seconds))
                print(f"{engine:<44} {precision:<9} {at:>5} {tokens / seconds:>9,.0f}  "
                      f"{np.abs(logits - truth).max():.2g}", flush=True)
        except Exception as e:  # a peer that cannot is a row that says why
            print(f"{name:<44} {type(e).__name__}: {str(e).splitlines()[0][:80]}", flush=True)
    work, d, f = operations(args.model, seqs)
    rates = matmul_rates(args, d, f)
    for precision in ("fp32", "bf16", "int8"):
        mine = [r[2] for r in rows if r[0] == "ours" and r[1] == precision]
        peers = [r[2] for r in rows if r[0] != "ours" and r[1] == precision]
        if mine and peers:
            print(f"{precision}: {mine[0] / max(peers):.2f} times the best peer")
        if mine and rates.get(precision):
            print(f"{precision}: {mine[0] * work / tokens / 1e12:.2f} TOP/s, "
                  f"{mine[0] * work / tokens / rates[precision]:.0%} of oneDNN's plain matmul "
                  f"({rates[precision] / 1e12:.2f})")


if __name__ == "__main__":
    main()

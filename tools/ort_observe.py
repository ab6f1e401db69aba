#!/usr/bin/env python3
"""Activations of an ONNX model under ONNX Runtime, for `rerank compare`, as A or B (file:OUT).

    rerank export -m DIR -o m.onnx --all-outputs
    rerank compare -m DIR --b ref --pairs pairs.jsonl --dump-ids ids.txt
    python tools/ort_observe.py m.onnx ids.txt out.safetensors
    rerank compare -m DIR --b file:out.safetensors --pairs pairs.jsonl

Sequences run one by one, so nothing is padded; rows are laid end to end as the engine does.
"""
import sys

import numpy as np
import onnxruntime as ort
from safetensors.numpy import save_file

model, ids_path, out_path = sys.argv[1:]
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
names = [o.name for o in session.get_outputs()]
inputs = [i.name for i in session.get_inputs()]
rows = {n: [] for n in names}
for line in open(ids_path):
    split, *ids = map(int, line.split())
    ids = np.array([ids], np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids),
             "token_type_ids": (np.arange(ids.shape[1]) >= split)[None].astype(np.int64)}
    for n, v in zip(names, session.run(names, {k: v for k, v in feeds.items() if k in inputs})):
        rows[n].append(v.reshape(-1, v.shape[-1]).astype(np.float32))
save_file({n: np.concatenate(v) for n, v in rows.items()}, out_path)

"""Random XLM-RoBERTa models of the real width: all 24 layers, or one under a table of more than 2 GiB."""
import json
import os
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]


def write_large(folder, seed=0, vocab=2000, d=1024, f=4096, layers=24):
    """A 24x1024 XLM-RoBERTa with few pieces, random weights scaled so that activations stay alive."""
    rng = np.random.default_rng(seed)
    w = {}

    def normal(name, *shape, std):
        w[name] = rng.standard_normal(shape, np.float32) * np.float32(std)

    e = "roberta.embeddings."
    normal(e + "word_embeddings.weight", vocab, d, std=0.5)
    normal(e + "position_embeddings.weight", 130, d, std=0.1)
    normal(e + "token_type_embeddings.weight", 1, d, std=0.1)
    for n in [e + "LayerNorm"] + [f"roberta.encoder.layer.{i}.{p}.LayerNorm" for i in range(layers)
                                  for p in ("attention.output", "output")]:
        w[n + ".weight"] = (1 + 0.1 * rng.standard_normal(d)).astype(np.float32)
        normal(n + ".bias", d, std=0.1)
    for i in range(layers):
        p = f"roberta.encoder.layer.{i}."
        for n, o, k in (("attention.self.query", d, d), ("attention.self.key", d, d), ("attention.self.value", d, d),
                        ("attention.output.dense", d, d), ("intermediate.dense", f, d), ("output.dense", d, f)):
            normal(p + n + ".weight", o, k, std=1.2 / np.sqrt(k))
            normal(p + n + ".bias", o, std=0.05)
    normal("classifier.dense.weight", d, d, std=1 / np.sqrt(d))
    normal("classifier.dense.bias", d, std=0.05)
    normal("classifier.out_proj.weight", 1, d, std=2 / np.sqrt(d))
    normal("classifier.out_proj.bias", 1, std=0.05)
    folder.mkdir()
    config = json.loads((ROOT / "models/mini/config.json").read_text())
    config |= {"hidden_size": d, "intermediate_size": f, "num_hidden_layers": layers, "num_attention_heads": 16,
               "vocab_size": vocab, "max_position_embeddings": 130, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(w, folder / "model.safetensors")


def write_huge(folder, rows=560_000):
    """One layer under a table of more than 2 GiB. The file has a hole: only the table's ends are not zero."""
    write_large(folder, vocab=200, layers=1)
    w = load_file(folder / "model.safetensors")
    name = "roberta.embeddings.word_embeddings.weight"
    table, header, at = w.pop(name), {}, 0
    for key, t in [*w.items(), (name, None)]:
        shape = [rows, 1024] if t is None else list(t.shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at := at + 4 * int(np.prod(shape))]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in w.values():
            f.write(t.tobytes())
        f.write(table[:100].tobytes())
        f.seek((rows - 200) * 4096, os.SEEK_CUR)
        f.write(table[100:].tobytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    return rows

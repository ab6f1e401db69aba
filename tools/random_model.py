#!/usr/bin/env python3
"""random_model.py DIR - a randomly initialised model of bge-reranker-v2-m3's exact shape.

    python tools/random_model.py build/random [--dtype float16] [--layers 24] [--seed 1] [--pairs 40]
                                 [--longest 8192]

Writes what transformers' save_pretrained writes (24 layers x 1024, 250,002 pieces, 8,194 positions,
568 M parameters), the XLM-R tokenizer, and truth.safetensors: ids of ragged pairs with the fp32
logits of Hugging Face, as tools/oracle.py describes. Real weights are not needed to test numbers
or to measure speed. --std: with transformers' own 0.02 all pairs get nearly one logit (they differ
by 0.02), with 0.05 Hugging Face's own bf16 is off by 0.07; 0.03 lies between."""
import argparse
import lzma
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from oracle import DATA, logits_of, report

BOS, EOS = 0, 2


def config(layers, std):
    return transformers.XLMRobertaConfig(
        vocab_size=250002, hidden_size=1024, num_hidden_layers=layers, num_attention_heads=16,
        intermediate_size=4096, max_position_embeddings=8194, type_vocab_size=1, layer_norm_eps=1e-5,
        pad_token_id=1, bos_token_id=BOS, eos_token_id=EOS, num_labels=1, initializer_range=std)


def random_pairs(n, longest, rng, vocab):
    """<s> query </s></s> document </s> of random pieces; mean 180 tokens, lognormal, at most 512;
    and one of the longest length, if that is not 0."""
    seqs = []
    for i in range(n + (longest > 0)):
        length = int(np.clip(rng.lognormal(np.log(160), 0.5), 12, 512)) if i < n else longest
        query = int(np.clip(rng.lognormal(np.log(10), 0.4), 2, length - 6))
        q = rng.integers(4, vocab - 1, query).tolist()
        d = rng.integers(4, vocab - 1, length - query - 4).tolist()
        seqs.append([BOS, *q, EOS, EOS, *d, EOS])
    return seqs


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("dir", type=Path)
    ap.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    ap.add_argument("--layers", type=int, default=24)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--std", type=float, default=0.03)
    ap.add_argument("--pairs", type=int, default=40, help="0 writes no truth file")
    ap.add_argument("--longest", type=int, default=0, help="tokens of one more pair, at most 8192")
    args = ap.parse_args()

    start = time.time()
    torch.manual_seed(args.seed)
    model = transformers.XLMRobertaForSequenceClassification(config(args.layers, args.std))
    model = model.to(getattr(torch, args.dtype))
    args.dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.dir, max_shard_size="100GB")
    tokenizer = DATA / "xlmr.model.xz"
    with lzma.open(tokenizer) as src, open(args.dir / "sentencepiece.bpe.model", "wb") as dst:
        shutil.copyfileobj(src, dst)
    print(f"{args.dir}: {sum(p.numel() for p in model.parameters()):,} parameters, {args.dtype}, "
          f"{time.time() - start:.0f} s")
    if not args.pairs:
        return
    model = model.float().eval()
    seqs = random_pairs(args.pairs, args.longest, np.random.default_rng(args.seed), model.config.vocab_size)
    truth = {
        "ids": np.array([t for s in seqs for t in s], np.int32),
        "cu": np.cumsum([0] + [len(s) for s in seqs]).astype(np.int32),
        "seg": np.array([len(s) for s in seqs], np.int32),
        "logits": logits_of(model, seqs, [len(s) for s in seqs]),
        "observed": np.zeros(1, np.int32),
    }
    report("truth.safetensors", truth)
    save_file(truth, args.dir / "truth.safetensors")


if __name__ == "__main__":
    main()

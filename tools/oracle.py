#!/usr/bin/env python3
"""oracle.py - write the truth files of the tests with torch and transformers.

    python tools/oracle.py mini     tests/data/mini-truth.safetensors.xz
    python tools/oracle.py tiny     tests/data/tiny-xlmr.tar.xz, tests/data/tiny-bert.tar.xz
    python tools/oracle.py long     tests/data/tiny-long.tar.xz: sequences up to 8,192 tokens

Run by developers when a model or a test set changes; the tests only read what it wrote. A truth
file holds sequences end to end and what Hugging Face's fp32 eager forward pass makes of them:

    ids [n_tok] i32, cu [n_seq + 1] i32, seg [n_seq] i32 (leading tokens of type 0), logits [n_seq]
    <name of backend.h>, e.g. 3.ln1    activations of the first `observed` [1] i32 sequences
"""
import json
import lzma
import random
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from eval_pairs import eval_pairs
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests/data"


@torch.no_grad()
def logits_of(model, seqs, segs):
    """One sequence at a time: no padding, so nothing but the model itself is measured."""
    out = []
    for ids, seg in zip(seqs, segs):
        kwargs = {"input_ids": torch.tensor([ids])}
        if segs_used(model):
            kwargs["token_type_ids"] = torch.tensor([[0] * seg + [1] * (len(ids) - seg)])
        out.append(model(**kwargs).logits[0, 0].item())
    return np.array(out, np.float32)


def segs_used(model):
    return model.config.model_type == "bert" and model.config.type_vocab_size > 1


def activations_of(model, seqs, segs, keep=lambda name: True):
    """Every activation of backend.h, concatenated over the sequences."""
    base = getattr(model, model.base_model_prefix)
    seen, hooks = {}, []

    def watch(module, name):
        def hook(_, __, out):
            out = out[0] if isinstance(out, tuple) else out
            seen.setdefault(name, []).append(out.detach().reshape(-1, out.shape[-1]).numpy().copy())
        hooks.append(module.register_forward_hook(hook))

    watch(base.embeddings, "emb")
    for i, layer in enumerate(base.encoder.layer):
        att = layer.attention
        for part in ("query", "key", "value"):
            watch(getattr(att.self, part), f"{i}.{part}")
        watch(att.self, f"{i}.ctx")
        watch(att.output.dense, f"{i}.attn_out")
        watch(att.output, f"{i}.ln1")
        watch(layer.intermediate, f"{i}.ffn_mid")
        watch(layer.output.dense, f"{i}.ffn_out")
        watch(layer, f"{i}.ln2")
    logits = logits_of(model, seqs, segs)
    for h in hooks:
        h.remove()
    out = {name: np.concatenate(rows) for name, rows in seen.items()}
    for i in range(model.config.num_hidden_layers):
        out[f"{i}.qkv"] = np.concatenate([out.pop(f"{i}.{p}") for p in ("query", "key", "value")], 1)
    first = torch.tensor(np.stack([r[0] for r in seen[f"{len(base.encoder.layer) - 1}.ln2"]]))
    dense = model.classifier.dense if hasattr(model.classifier, "dense") else base.pooler.dense
    out["head"] = torch.tanh(dense(first)).detach().numpy()
    return {k: np.ascontiguousarray(v) for k, v in out.items() if keep(k)}, logits


def truth(model, seqs, segs, observed, keep=lambda name: True):
    model = model.float().eval()
    tensors, first = activations_of(model, seqs[:observed], segs[:observed], keep)
    rest = logits_of(model, seqs[observed:], segs[observed:])
    tensors["logits"] = np.concatenate([first, rest])
    tensors["ids"] = np.array([t for s in seqs for t in s], np.int32)
    tensors["cu"] = np.cumsum([0] + [len(s) for s in seqs]).astype(np.int32)
    tensors["seg"] = np.array(segs, np.int32)
    tensors["observed"] = np.array([observed], np.int32)
    return tensors


def report(name, t):
    length = np.diff(t["cu"])
    print(f"{name}: {len(length)} sequences of {length.min()}..{length.max()} tokens, logits "
          f"{t['logits'].min():.3f}..{t['logits'].max():.3f}, std {t['logits'].std():.3f}")


def mini():
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        ROOT / "models/mini", dtype=torch.float32, attn_implementation="eager")
    tok = transformers.AutoTokenizer.from_pretrained(ROOT / "models/mini")
    rng = random.Random(3)
    seqs = []
    for i, (q, d) in enumerate(eval_pairs(60, rng)):
        if i < 2:  # short ones, whose states are kept
            q, d = q[:12], d[:16]
        most = int(min(200, rng.lognormvariate(4, 0.6) + 20))
        seqs.append(tok(q, d, truncation="only_second" if i > 1 else False, max_length=most)["input_ids"])
    seqs.append(tok(*eval_pairs(1, rng)[0])["input_ids"] * 20)
    seqs[-1] = seqs[-1][:512]  # as long as the model goes
    keep = {"emb", "2.ln2", "5.ln2", "8.ln2", "11.ln2"}
    t = truth(model, seqs, [len(s) for s in seqs], 2, keep.__contains__)
    report("mini", t)
    with tempfile.NamedTemporaryFile() as f:
        save_file(t, f.name)
        (DATA / "mini-truth.safetensors.xz").write_bytes(lzma.compress(Path(f.name).read_bytes(), preset=9))


def shake(model, seed):
    """Random weights whose every part matters: no zero bias, no gamma of 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "LayerNorm.weight" in name:
                p.copy_(1 + 0.2 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.2 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * (0.3 if p.shape[0] == p.shape[-1] else 0.15))


def texts():
    """What the tiny tokenizers learn from: Latin script, so that a small vocabulary will do."""
    pairs = eval_pairs(2000, random.Random(5))
    return [t for pair in pairs for t in pair if max(map(ord, t)) < 0x250]


def xlmr_tokenizer(folder, vocab):
    """A small Unigram tokenizer.json of the same structure as XLM-R's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    full = json.loads((ROOT / "models/mini/tokenizer.json").read_text(encoding="utf-8"))
    tok = Tokenizer(models.Unigram())
    tok.normalizer = normalizers.NFKC()
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator(texts(), trainers.UnigramTrainer(
        vocab_size=vocab - 1, special_tokens=special, unk_token="<unk>", show_progress=False,
        initial_alphabet=[]))
    tok.add_special_tokens(["<mask>"])
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    made = json.loads(tok.to_str())
    made["normalizer"] = full["normalizer"]
    (folder / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def bert_tokenizer(folder, vocab):
    from tokenizers import BertWordPieceTokenizer
    tok = BertWordPieceTokenizer(lowercase=True)
    tok.train_from_iterator(texts(), vocab_size=vocab, show_progress=False, limit_alphabet=vocab // 2)
    tok.save_model(str(folder))
    tok = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    tok.save(str(folder / "tokenizer.json"), pretty=False)
    return tok


def tiny(name, config, model_class, make_tokenizer, dtype, seed):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tok = make_tokenizer(folder, config.vocab_size)
        assert tok.get_vocab_size() <= config.vocab_size
        config.vocab_size = tok.get_vocab_size()
        config._attn_implementation = "eager"
        model = model_class(config)
        shake(model, seed)
        model = model.to(dtype)
        model.save_pretrained(folder)
        most = config.max_position_embeddings - (2 if config.model_type == "xlm-roberta" else 0)
        seqs, segs = [], []
        for i, (q, d) in enumerate(eval_pairs(24, random.Random(seed))):
            e = tok.encode(q[:20], d[:14] if i < 2 else d)
            ids = e.ids[:most if i > 1 else None]
            types = e.type_ids[:len(ids)]
            seqs.append(ids)
            segs.append(types.count(0) if config.model_type == "bert" else len(ids))
        seqs += [[seqs[0][0]], [5, config.pad_token_id, 7, config.pad_token_id, config.pad_token_id, 9]]
        segs += [1, 3 if config.model_type == "bert" else 6]
        pack(name, folder, truth(model, seqs, segs, 2))


def long():
    """bge-reranker-v2-m3's longest window on a model so small that every backend can afford it; no tokenizer."""
    config = transformers.XLMRobertaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=8194, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=1,
        attn_implementation="eager")
    with tempfile.TemporaryDirectory() as folder:
        model = transformers.XLMRobertaForSequenceClassification(config)
        shake(model, 17)
        model = model.to(torch.float16)
        model.save_pretrained(folder)
        rng = random.Random(17)
        seqs = [[0] + [rng.randrange(4, 64) for _ in range(n - 2)] + [2] for n in (9, 700, 4097, 8192)]
        pack("tiny-long", Path(folder), truth(model, seqs, [len(s) for s in seqs], 1, lambda _: False))


def pack(name, folder, t):
    report(name, t)
    save_file(t, folder / "truth.safetensors")
    with tarfile.open(DATA / f"{name}.tar.xz", "w:xz", preset=9) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=plain)


def plain(info):
    """The same archive whoever packs it, whenever."""
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info


def main():
    what = sys.argv[1:] or ["mini", "tiny", "long"]
    if "mini" in what:
        mini()
    if "long" in what:
        long()
    if "tiny" in what:
        sizes = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_labels=1)
        tiny("tiny-xlmr", transformers.XLMRobertaConfig(
            vocab_size=600, intermediate_size=96, max_position_embeddings=130, type_vocab_size=1,
            pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5, **sizes),
            transformers.XLMRobertaForSequenceClassification, xlmr_tokenizer, torch.float32, 11)
        tiny("tiny-bert", transformers.BertConfig(
            vocab_size=500, intermediate_size=112, max_position_embeddings=96, type_vocab_size=2,
            pad_token_id=0, layer_norm_eps=1e-12, **sizes),
            transformers.BertForSequenceClassification, bert_tokenizer, torch.bfloat16, 12)


if __name__ == "__main__":
    main()

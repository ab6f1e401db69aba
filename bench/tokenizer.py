#!/usr/bin/env python3
"""Our tokenizer beside PyPI `tokenizers` and `sentencepiece`, one thread, one run.

    tokenizer.py BENCH_PROGRAM XLMR_DIR        (make bench-tokenizer)

The texts are the passages of the evaluation sets, each document once, joined to documents of about
2 KB; so no cache sees a text twice. All use XLM-R's full vocabulary. The order of the three turns
with each round; the best of three rounds counts, each of ours in a fresh process.
"""
import json
import os
import platform
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import sentencepiece
import tokenizers

SETS = [("English", "squad-dev-12art"), ("German", "xquad-de"), ("Chinese", "drcd-dev"), ("Japanese", "jaquad-dev"),
        ("Thai", "xquad-th"), ("Arabic", "xquad-ar"), ("Vietnamese", "xquad-vi")]


def documents(name, size=2048):
    out, now = [], ""
    with open(f"models/mini/eval/{name}/corpus.jsonl", encoding="utf-8") as f:
        for line in f:
            now += ("\n" if now else "") + json.loads(line)["text"].replace("\0", "")
            if len(now.encode()) >= size:
                out.append(now)
                now = ""
    return out


def checksum(all_ids):
    total = 0
    for ids in all_ids:
        for i in ids:
            total = (total * 31 + i) & 0xFFFFFFFFFFFFFFFF
    return total & 0xFFFFFFFF


def main():
    program, folder = sys.argv[1:3]
    hf = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    sp = sentencepiece.SentencePieceProcessor(os.path.join(folder, "spm/sentencepiece.bpe.model"))
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"{cpu}, Python {platform.python_version()}, tokenizers {tokenizers.__version__}, "
          f"sentencepiece {sentencepiece.__version__}; one thread, MB/s of UTF-8")
    print(f"{'text':<12}{'MB':>6}{'ours':>8}{'sentencepiece':>15}{'HF':>8}{'x sp':>7}{'x HF':>7}  100 x 2 KB  same ids as HF")
    for language, name in SETS:
        docs = documents(name)
        size = sum(len(d.encode()) for d in docs)
        with tempfile.NamedTemporaryFile() as f:
            f.write(b"".join(d.encode() + b"\0" for d in docs))
            f.flush()

            def ours():
                done = subprocess.run([program, folder, f.name], capture_output=True, check=True)
                return json.loads(done.stdout)

            best = {}
            for r in range(3):
                for who in ("ours", "sp", "hf")[r:] + ("ours", "sp", "hf")[:r]:
                    if who == "ours":
                        mine = ours()
                        took = mine["seconds"]
                    else:
                        start = time.perf_counter()
                        if who == "sp":
                            for d in docs:
                                sp.EncodeAsIds(d)
                        else:
                            for d in docs:
                                hf.encode(d, add_special_tokens=False)
                        took = time.perf_counter() - start
                    best[who] = min(took, best.get(who, took))
            same = checksum(hf.encode(d, add_special_tokens=False).ids for d in docs) == mine["sum"]
        rate = {k: size / v / 1e6 for k, v in best.items()}
        print(f"{language:<12}{size / 1e6:>6.2f}{rate['ours']:>8.1f}{rate['sp']:>15.1f}{rate['hf']:>8.1f}"
              f"{rate['ours'] / rate['sp']:>7.1f}{rate['ours'] / rate['hf']:>7.1f}"
              f"{best['ours'] / size * 204800 * 1e3:>9.2f} ms  {'yes' if same else 'NO'}", flush=True)
    print(f"tokenizer.json of {os.path.getsize(os.path.join(folder, 'tokenizer.json')) / 1e6:.1f} MB loads in "
          f"{min(ours_load(program, folder) for _ in range(5)):.0f} ms")


def ours_load(program, folder):
    with tempfile.NamedTemporaryFile() as f:
        f.write(b"x\0")
        f.flush()
        return json.loads(subprocess.run([program, folder, f.name], capture_output=True, check=True).stdout)["load_ms"]


main()

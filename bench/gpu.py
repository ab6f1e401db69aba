#!/usr/bin/env python3
"""gpu.py ENGINE MODEL_DIR - ours and both PyTorch scripts in one run, as one table.

    make bench-gpu        (python bench/gpu.py build/gpu_engine build/random)

ENGINE is build/gpu_engine. Ours is timed by the wall clock around the whole call (upload, pass,
download, wait); PyTorch by events around the pass alone. Ratio: PyTorch's time over ours."""
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SMALL = ("1x128", "1x512")  # what --fast is for
CASES = ("1x128", "1x512", "8x512", "ragged100", "100x512")


def lines_of(*command):
    """Print what the program prints, return {(case, who): ms}."""
    seen = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as p:
        for line in p.stdout:
            print("  " + line, end="", flush=True)
            m = re.match(r"time\s+(\S+)\s+(\S+)\s+tokens\s+\d+\s+([\d.]+) ms", line)
            if m:
                seen[m[1], m[2]] = float(m[3])
    if p.returncode:
        sys.exit(f"{command[0]}: exit {p.returncode}")
    return seen


def main():
    engine, model = sys.argv[1:3]
    import torch
    import transformers
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers "
          f"{transformers.__version__}, CUDA {torch.version.cuda}")
    t = lines_of(engine, model, "fp16,fp8")
    fast = {}
    for c in SMALL:
        fast |= lines_of(engine, model, "fp16,fp8", c, "fast")
    t |= lines_of(sys.executable, HERE / "gpu_torch_hf.py")
    t |= lines_of(sys.executable, HERE / "gpu_torch_varlen.py")
    print("\n| ms | ours fp16 | ours fp8 | torch fp16 | torch fp8 | HF fp16 | ratio to torch fp16 / fp8 "
          "| to HF |\n|---|---|---|---|---|---|---|---|")
    for c in CASES:
        hf = min(v for (case, who), v in t.items() if case == c and who.startswith("hf"))
        a, b, x, y = (t[c, w] for w in ("fp16", "fp8", "torch-fp16", "torch-fp8"))
        print(f"| {c} | {a:.2f} | {b:.2f} | {x:.2f} | {y:.2f} | {hf:.1f} | {x / a:.2f} / {y / b:.2f} | "
              f"{hf / a:.1f} |")
    for c in SMALL:
        a, b, x, y = fast[c, "fp16"], fast[c, "fp8"], t[c, "torch-fp16"], t[c, "torch-fp8"]
        print(f"| {c} --fast | {a:.2f} | {b:.2f} | | | | {x / a:.2f} / {y / b:.2f} | |")


if __name__ == "__main__":
    main()

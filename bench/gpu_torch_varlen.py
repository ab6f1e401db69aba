#!/usr/bin/env python3
"""gpu_torch_varlen.py - the best PyTorch we know for ragged pairs, as the bar to beat.

    python bench/gpu_torch_varlen.py

No padding: flat tokens, varlen flash attention, a layer compiled by torch.compile for the exact
shape, 24 of them in one CUDA graph. fp8 (e4m3) by torch._scaled_mm with the cheapest scaling there
is, one constant a tensor; its conversions are fused by the compiler. The embedding, the head and
the upload are left out, so this is a little less work than ours. Random weights of
bge-reranker-v2-m3's shape, the cases of gpu_torch_hf.py; `time` lines for bench/gpu.py."""
import torch
import torch.nn.functional as F

from gpu_lengths import ragged_lengths
from gpu_torch_hf import CUDA, median_ms

D, HEADS, FF, LAYERS = 1024, 16, 4096, 24
E4M3 = torch.float8_e4m3fn


def random_layer(dtype):
    def r(*shape):
        return (torch.randn(*shape, device=CUDA) * 0.02).to(dtype)
    return {"wqkv": r(3 * D, D), "bqkv": r(3 * D), "wo": r(D, D), "bo": r(D), "w1": r(FF, D),
            "b1": r(FF), "w2": r(D, FF), "b2": r(D), "g1": r(D) + 1, "c1": r(D), "g2": r(D) + 1,
            "c2": r(D)}


def attend(qkv, cu, longest):
    q, k, v = qkv.view(-1, 3, HEADS, D // HEADS).unbind(1)
    out = torch.ops.aten._flash_attention_forward(q, k, v, cu, cu, longest, longest, 0.0, False,
                                                  False)[0]
    return out.reshape(-1, D)


def layer_fp16(x, _, p, cu, longest):
    y = F.linear(attend(F.linear(x, p["wqkv"], p["bqkv"]), cu, longest), p["wo"], p["bo"])
    x = F.layer_norm(x + y, (D,), p["g1"], p["c1"], 1e-5)
    y = F.linear(F.gelu(F.linear(x, p["w1"], p["b1"])), p["w2"], p["b2"])
    return F.layer_norm(x + y, (D,), p["g2"], p["c2"], 1e-5), x


def e4m3(x):
    return x.clamp(-448, 448).to(E4M3)


def linear_fp8(x8, w8, bias, one):
    return torch._scaled_mm(x8, w8.t(), scale_a=one, scale_b=one, bias=bias,
                            out_dtype=torch.bfloat16, use_fast_accum=True)


def layer_fp8(x, x8, p, cu, longest):
    """x8 is x in fp8: carried from layer to layer, so that LayerNorm and conversion fuse."""
    one = p["one"]
    a = attend(linear_fp8(x8, p["wqkv"], p["bqkv"], one), cu, longest)
    x = F.layer_norm(x + linear_fp8(e4m3(a), p["wo"], p["bo"], one), (D,), p["g1"], p["c1"], 1e-5)
    m = e4m3(F.gelu(linear_fp8(e4m3(x), p["w1"], p["b1"], one)))
    x = F.layer_norm(x + linear_fp8(m, p["w2"], p["b2"], one), (D,), p["g2"], p["c2"], 1e-5)
    return x, e4m3(x)


def graph_of(layer, layers, lengths, dtype):
    """A captured graph of all layers over these lengths (fp8: the last is longer by up to 15)."""
    lengths = list(lengths)
    if dtype == torch.bfloat16:
        lengths[-1] += -sum(lengths) % 16
    cu = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(CUDA)
    x = torch.randn(sum(lengths), D, device=CUDA, dtype=dtype)
    compiled = torch.compile(layer, dynamic=False)

    def run():
        y, y8 = x, e4m3(x)
        for p in layers:
            y, y8 = compiled(y, y8, p, cu, max(lengths))
        return y

    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


@torch.inference_mode()
def main():
    torch.manual_seed(0)
    torch._dynamo.config.cache_size_limit = 64
    half = [random_layer(torch.float16) for _ in range(LAYERS)]
    one = torch.tensor(1.0, device=CUDA)
    fp8 = [{k: v.to(E4M3) if k[0] == "w" else v for k, v in random_layer(torch.bfloat16).items()}
           | {"one": one} for _ in range(LAYERS)]
    cases = {"1x128": [128], "1x512": [512], "8x512": [512] * 8, "ragged100": ragged_lengths(),
             "100x512": [512] * 100}
    for name, lengths in cases.items():
        for who, layer, layers, dtype in (("torch-fp16", layer_fp16, half, torch.float16),
                                          ("torch-fp8", layer_fp8, fp8, torch.bfloat16)):
            graph = graph_of(layer, layers, lengths, dtype)
            print(f"time {name} {who} tokens {sum(lengths)} {median_ms(graph.replay, 20):.3f} ms",
                  flush=True)


if __name__ == "__main__":
    main()

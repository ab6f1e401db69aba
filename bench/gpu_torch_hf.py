#!/usr/bin/env python3
"""gpu_torch_hf.py - the reranker as most people run it: Hugging Face transformers, sdpa, fp16.

    python bench/gpu_torch_hf.py

Random weights of bge-reranker-v2-m3's shape. ragged100 is 100 pairs of 24..512 tokens (lognormal,
seed 1): padded in one batch (hf), and sorted by length in batches of 32 as sentence-transformers
does (hf-sorted). Prints `time CASE WHO tokens N ms` lines that bench/gpu.py reads; medians of 10."""
import torch
import transformers

from gpu_lengths import ragged_lengths

torch.manual_seed(0)
CUDA = torch.device("cuda")


def median_ms(run, repeats=10, warm=3):
    times = []
    for i in range(warm + repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if i >= warm:
            times.append(begin.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def padded(lengths):
    """ids and mask [batch, longest], pad token 1."""
    ids = torch.ones(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 250000, (length,))
        mask[row, :length] = 1
    return {"input_ids": ids.to(CUDA), "attention_mask": mask.to(CUDA)}


@torch.inference_mode()
def main():
    config = transformers.XLMRobertaConfig(
        vocab_size=250002, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
        intermediate_size=4096, max_position_embeddings=8194, type_vocab_size=1, num_labels=1,
        layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    torch.set_default_device(CUDA)
    torch.set_default_dtype(torch.float16)
    model = transformers.XLMRobertaForSequenceClassification._from_config(
        config, attn_implementation="sdpa").eval()
    torch.set_default_device("cpu")
    ragged = ragged_lengths()
    by_length = sorted(ragged, reverse=True)
    cases = [("1x128", "hf", [[128]]), ("1x512", "hf", [[512]]), ("8x512", "hf", [[512] * 8]),
             ("ragged100", "hf", [ragged]),
             ("ragged100", "hf-sorted", [by_length[i:i + 32] for i in range(0, 100, 32)]),
             ("100x512", "hf", [[512] * 100])]
    for name, who, batches in cases:
        inputs = [padded(b) for b in batches]
        ms = median_ms(lambda: [model(**b).logits for b in inputs])
        print(f"time {name} {who} tokens {sum(map(sum, batches))} {ms:.3f} ms", flush=True)


if __name__ == "__main__":
    main()

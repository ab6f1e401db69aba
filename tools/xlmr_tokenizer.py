#!/usr/bin/env python3
"""Write the tokenizer.json of bge-reranker-v2-m3 (17 MB) from its sentencepiece model (5 MB).

    xlmr_tokenizer.py tests/data/xlmr.model DIR

DIR gets tokenizer.json, byte for byte the published file's, and spm/sentencepiece.bpe.model.
The protobuf is read by hand, so that nothing needs to be installed.
"""
import base64
import json
import os
import shutil
import struct
import sys


def fields(data):
    """(number, value) of each field of a protobuf message."""
    i = 0

    def varint():
        nonlocal i
        shift = value = 0
        while True:
            b = data[i]
            i += 1
            value |= (b & 127) << shift
            shift += 7
            if b < 128:
                return value

    while i < len(data):
        key = varint()
        wire = key & 7
        if wire == 0:
            value = varint()
        else:
            n = {1: 8, 5: 4}.get(wire) or varint()
            value = data[i:i + n]
            i += n
        yield key >> 3, value


def main():
    model, out = sys.argv[1:3]
    vocab = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]
    charsmap, index = b"", 0
    for number, value in fields(open(model, "rb").read()):
        if number == 1:
            piece = dict(fields(value))
            if index >= 3:
                vocab.append([piece[1].decode(), struct.unpack("<f", piece[2])[0]])
            index += 1
        elif number == 3:
            charsmap = dict(fields(value))[2]
    vocab.append(["<mask>", 0.0])

    def added(token_id, content):
        return {"id": token_id, "content": content, "single_word": False, "lstrip": content == "<mask>",
                "rstrip": False, "normalized": False, "special": True}

    def special(token):
        return {"SpecialToken": {"id": token, "type_id": 0}}

    def text(which):
        return {"Sequence": {"id": which, "type_id": 0}}

    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "prepend_scheme": "always"}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, vocab[i][0]) for i in (0, 1, 2, 3, len(vocab) - 1)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]},
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("<s>"), text("A"), special("</s>")],
            "pair": [special("<s>"), text("A"), special("</s>"), special("</s>"), text("B"), special("</s>")],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (("</s>", 2), ("<s>", 0))}},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}}
    os.makedirs(os.path.join(out, "spm"), exist_ok=True)
    shutil.copy(model, os.path.join(out, "spm", "sentencepiece.bpe.model"))
    path = os.path.join(out, "tokenizer.json")
    with open(path + ".part", "w", encoding="utf-8") as f:
        json.dump(tokenizer, f, ensure_ascii=False, indent=2)
    os.rename(path + ".part", path)


main()

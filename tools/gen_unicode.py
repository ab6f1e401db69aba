#!/usr/bin/env python3
"""Write src/text/unicode_tables.c.

    gen_unicode.py TABLES_RS > src/text/unicode_tables.c

The reference is the Hugging Face `tokenizers` package, whose parts follow different versions of
Unicode (normalization 9.0, categories 8.0, lower case and white space those of the Rust standard
library). So nothing is taken from the Unicode database directly: every property is asked of the
installed package, code point by code point. Only grapheme cluster classes cannot be asked; they are
read from TABLES_RS, src/tables.rs of the crate `unicode-segmentation` in the version that the
package is built with (1.13.3: Unicode 17.0).
"""
import re
import sys
import unicodedata

import tokenizers
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P

CATS = ["Any", "CR", "LF", "Control", "Extend", "ZWJ", "SpacingMark", "Prepend", "Regional_Indicator",
        "L", "V", "T", "LV", "LVT", "Extended_Pictographic", "InCB_Consonant"]
LINKER, INCB_EXTEND, SPACE, WORD, OTHER, PUNCT, MARK, LOWER, NFD, NFKD, COMBINING = (1 << b for b in range(4, 15))
MAX = 0x110000
SURROGATES = range(0xD800, 0xE000)


def rust_char(text):
    m = re.match(r"\\u\{([0-9a-fA-F]+)\}", text)
    return int(m[1], 16) if m else ord({"\\n": "\n", "\\r": "\r", "\\t": "\t"}.get(text, text))


def grapheme_classes(path, prop):
    source = open(path, encoding="utf-8").read()
    char = r"'(\\u\{[0-9a-fA-F]+\}|\\?.)'"
    for lo, hi, name in re.findall(rf"\({char},\s*{char},\s*GC_(\w+)\)", source):
        for c in range(rust_char(lo), rust_char(hi) + 1):
            prop[c] |= CATS.index(name)
    for c in range(0x20):
        prop[c] = prop[c] & ~15 | CATS.index({10: "LF", 13: "CR"}.get(c, "Control"))
    linkers = re.search(r"fn is_incb_linker.*?\n\}", source, re.S)[0]
    for text in re.findall(char, linkers):
        prop[rust_char(text)] |= LINKER
    table = re.search(r"InCB_Extend_table[^=]*= &\[(.*?)\];", source, re.S)[1]
    for lo, hi in re.findall(rf"\({char},\s*{char}\)", table):
        for c in range(rust_char(lo), rust_char(hi) + 1):
            prop[c] |= INCB_EXTEND


def ask(prop):
    """Properties and mappings from the package; returns lower, nfd, nfkd as {c: text}, and ccc."""
    clean = N.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    accents = N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    lower, nfd, nfkd, ccc = {}, {}, {}, {}
    n_lower, n_nfd, n_nfkd, strip = N.Lowercase(), N.NFD(), N.NFKD(), N.StripAccents()
    split, punct, word = P.WhitespaceSplit(), P.Punctuation(), P.Whitespace()
    for c in range(MAX):
        if c in SURROGATES:
            continue
        s = chr(c)
        if not split.pre_tokenize_str(s):
            prop[c] |= SPACE
        if clean.normalize_str(s) == "" and c not in (0, 0xFFFD):
            prop[c] |= OTHER
        if len(punct.pre_tokenize_str(s + "a")) == 2:
            prop[c] |= PUNCT
        if len(word.pre_tokenize_str("a" + s)) == 1 and not prop[c] & SPACE:
            prop[c] |= WORD
        for table, bit, normalizer in ((lower, LOWER, n_lower), (nfd, NFD, n_nfd), (nfkd, NFKD, n_nfkd)):
            t = normalizer.normalize_str(s)
            if t != s and not (table is not lower and 0xAC00 <= c < 0xD7A4):
                table[c] = t
                prop[c] |= bit
        if c not in nfd and accents.normalize_str(s) == "":
            prop[c] |= MARK
        if strip.normalize_str(s) == "":
            prop[c] |= COMBINING
        k = unicodedata.combining(s)
        if k:  # known to the package's version of Unicode if it reorders it
            other = "\u0345" if k < 240 else "\u0334"
            got = n_nfd.normalize_str(other + s if k < 240 else s + other)
            if got != (other + s if k < 240 else s + other):
                ccc[c] = k
    return lower, nfd, nfkd, ccc


def compositions(nfd):
    """(first, second, composed) of the primary composites."""
    nfc, out = N.NFC(), []
    for c in nfd:
        parts = unicodedata.decomposition(chr(c)).split()
        if len(parts) == 2 and nfc.normalize_str(chr(c)) == chr(c):
            out.append((int(parts[0], 16), int(parts[1], 16), c))
    return sorted(out)


def emit(ctype, name, values, form="{}"):
    print(f"const {ctype} {name}[{len(values)}] = {{")
    line = "   "
    for v in values:
        item = " " + form.format(v) + ","
        if len(line) + len(item) > 99:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\n")


def emit_map(name, table):
    """Sorted keys, offsets into one pool of code points: value i is pool[at[i]] .. pool[at[i + 1]]."""
    keys, at, pool = sorted(table), [0], []
    for k in keys:
        pool += map(ord, table[k])
        at.append(len(pool))
    emit("uint32_t", f"rr__uc_{name}_key", keys)
    emit("uint16_t", f"rr__uc_{name}_at", at)
    emit("uint32_t", f"rr__uc_{name}_pool", pool)
    return len(keys)


def main():
    prop = [0] * MAX
    grapheme_classes(sys.argv[1], prop)
    lower, nfd, nfkd, ccc = ask(prop)
    nfkd = {c: t for c, t in nfkd.items() if nfd.get(c) != t}
    for c in range(MAX):
        if c not in nfkd:
            prop[c] &= ~NFKD
    combos = sorted(set(prop))
    blocks, stage1 = {}, []
    for b in range(0, MAX, 128):
        block = tuple(combos.index(p) for p in prop[b:b + 128])
        stage1.append(blocks.setdefault(block, len(blocks)))
    assert len(combos) <= 256 and len(blocks) <= 65535
    print(f"/* unicode_tables.c - generated by tools/gen_unicode.py from tokenizers {tokenizers.__version__};")
    print(" * do not edit. Layout: unicode.h. */")
    print("/* clang-format off */")
    print('#include "text/unicode.h"\n')
    emit("uint16_t", "rr__uc_combo", combos)
    emit("uint16_t", "rr__uc_stage1", stage1)
    emit("uint8_t", "rr__uc_stage2", [v for block in blocks for v in block])
    n = [emit_map("lower", lower), emit_map("nfd", nfd), emit_map("nfkd", nfkd)]
    emit("uint32_t", "rr__uc_ccc", [c << 8 | k for c, k in sorted(ccc.items())])
    pairs = compositions(nfd)
    for i, part in enumerate(("first", "second", "composed")):
        emit("uint32_t", f"rr__uc_{part}", [p[i] for p in pairs])
    names = ("LOWER", "NFD", "NFKD", "CCC", "PAIR")
    counts = n + [len(ccc), len(pairs)]
    print("/* " + " ".join(f"{a}={b}" for a, b in zip(names, counts)), f"combos={len(combos)} blocks={len(blocks)} */",
          file=sys.stderr)
    for a, b in zip(names, counts):
        print(f"const uint32_t rr__uc_n_{a.lower()} = {b};")


main()

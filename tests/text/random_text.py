"""Random texts that a tokenizer may stumble over: mixed scripts, combining marks, emoji sequences,
Hangul, Thai, controls, special tokens inside text, long runs of spaces."""
import random

RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0xA0, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF),
          (0x400, 0x52F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF),
          (0xD00, 0xD7F), (0xE00, 0xE7F), (0xE80, 0xEFF), (0xF00, 0xFFF), (0x1000, 0x109F), (0x1100, 0x11FF),
          (0x1780, 0x17FF), (0x1B00, 0x1BFF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF), (0x20D0, 0x20FF),
          (0x2100, 0x218F), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x2E80, 0x2FDF), (0x3000, 0x30FF),
          (0x3130, 0x33FF), (0x4E00, 0x9FFF), (0x4E00, 0x9FFF), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xF900, 0xFAFF),
          (0xFB00, 0xFDFF), (0xFE00, 0xFE6F), (0xFE70, 0xFEFF), (0xFF00, 0xFFEF), (0xFFF0, 0xFFFF), (0x10000, 0x100FF),
          (0x10400, 0x1044F), (0x10A00, 0x10A5F), (0x11100, 0x1114F), (0x113B0, 0x113E2), (0x1D400, 0x1D7FF),
          (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F6FF), (0x1F900, 0x1FAFF), (0x20000, 0x2A6DF), (0x2F800, 0x2FA1F),
          (0xE0000, 0xE007F), (0xE0100, 0xE01EF), (0xF0000, 0xF00FF), (0, 0x1F), (0x7F, 0xA0)]
BITS = ["<s>", "</s>", "<mask>", "<unk>", "<pad>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]", "＜s＞", "<S>", "▁", "▁▁",
        " ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u200b", "\u200c", "\u200d", "\ufeff", "\u0085",
        "\u2028", "\u2029", "\u1680", "\u180e", "\ufffd", "\x00", "\x01", "\x7f", "\x1c", "e\u0301", "ｅ\u0301", "a\u0301\u0323",
        "\u0301", "\u0345", "ｶﾞ", "か\u3099", "ﬁ", "Å", "①", "½", "ſ\u0323\u0307", "İ", "ß", "ς", "ΑΣ", "K", "ガ", "ำ", "กำ",
        "\u1100\u1161\u11a8", "\u1100\u1161", "각", "가\u11a8", "\u0915\u094d\u0937", "\u0915\u094d\u200d\u0937", "नी", "\u09cd",
        "\u0600", "\u06dd1", "\U000110bd", "\u0e33", "\u0f71\u0f72", "👨‍👩‍👧", "👍🏽", "🇩🇪🇫🇷🇯", "❤️‍🔥", "©️", "1️⃣",
        "the", "The", "ing", "tion", " of ", " and ", "don't", "e.g.", "3.14", "100,000", "http://x.y/z?a=b&c=d", "Straße",
        "中文", "东京", "東京都", "我们", "日本語", "한국어", "العربية", "ไทย", "Ελλάδα", "привет", "हिन्दी", "...", "!!!", "-", "—"]


def char(rng):
    lo, hi = rng.choice(RANGES)
    c = rng.randint(lo, hi)
    return chr(c) if not 0xD800 <= c < 0xE000 else "x"


def text(rng):
    kind, out = rng.randrange(8), []
    for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 21, 40, 120))):
        p = rng.random()
        if kind == 0:  # letters and spaces
            out.append(rng.choice("etaoinshrdlu  ETAOIN,.'-"))
        elif kind == 1:  # one script, with marks
            out.append(char(rng) if p < 0.3 or not out else chr(ord(out[-1][0]) ^ rng.randrange(16)))
        elif kind == 2 or p < 0.4:
            out.append(rng.choice(BITS))
        elif p < 0.85:
            out.append(char(rng))
        elif p < 0.9:
            out.append(" " * rng.choice((1, 2, 3, 50)))
        elif p < 0.95:
            out.append(rng.choice(BITS) * rng.randint(2, 6))
        else:  # anything at all
            out.append(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))))
    return "".join(c if not 0xD800 <= ord(c[0]) < 0xE000 else "?" for c in out)


def texts(seed, n):
    rng = random.Random(seed)
    return [text(rng) for _ in range(n)]

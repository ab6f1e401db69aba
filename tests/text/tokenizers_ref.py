"""Our tokenizer (through build/tests/text/encode) beside the PyPI package `tokenizers`."""
import json
import os
import subprocess

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

BUILD = os.environ.get("BUILD", "build")
ENCODE = os.path.join(BUILD, "tests/text/encode")
XLMR = os.path.join(BUILD, "tests/xlmr")
MINI = "models/mini"


def ours(folder, requests):
    lines = "".join(json.dumps(r) + "\n" for r in requests)
    done = subprocess.run([ENCODE, folder], input=lines.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def reference(folder):
    return Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))


def byte_offsets(text, offsets):
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return [[at[a], at[b]] for a, b in offsets]


def compare(folder, texts, spans=False, tokenizer=None):
    """Texts whose ids differ, as (text, ours, reference)."""
    tokenizer = tokenizer or reference(folder)
    got = ours(folder, [{"text": t, "spans": 1} if spans else {"text": t} for t in texts])
    assert len(got) == len(texts)
    bad = []
    for text, mine, enc in zip(texts, got, tokenizer.encode_batch(texts, add_special_tokens=spans)):
        want = enc.ids
        if spans:
            end = len(text.encode())
            want = [[i, *o] for i, o in zip(enc.ids, byte_offsets(text, enc.offsets))]
            for k, s in enumerate(enc.special_tokens_mask):  # the template's stand for no text
                if s and want[k][1:] == [0, 0] and k:
                    want[k][1:] = [end, end]
        if mine != want:
            bad.append((text, mine, want))
    return bad


def from_sentencepiece():
    """What transformers makes of XLM-R's sentencepiece model: scores are exact floats there, while
    a tokenizer.json is read with serde_json's rounding."""
    with open(os.path.join(XLMR, "tokenizer.json"), encoding="utf-8") as f:
        vocab = json.load(f)["model"]["vocab"]
    t = reference(XLMR)
    special = list(t.get_added_tokens_decoder().values())
    made = Tokenizer(models.Unigram([(p, s) for p, s in vocab], unk_id=3, byte_fallback=False))
    made.normalizer, made.pre_tokenizer, made.post_processor = t.normalizer, t.pre_tokenizer, t.post_processor
    made.add_special_tokens(special)
    return made


def wordpiece(folder, texts, lowercase=True):
    """Make a small WordPiece tokenizer from texts in folder; vocab.txt and tokenizer.json agree."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    seen, words = set(vocab), {}
    split = pre_tokenizers.BertPreTokenizer()
    norm = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase)
    for text in texts:
        for word, _ in split.pre_tokenize_str(norm.normalize_str(text)):
            words[word] = words.get(word, 0) + 1
    for word in sorted(words, key=words.get, reverse=True)[:6000]:
        for piece in (word[0], "##" + word[-1], word[:3], "##" + word[3:6], word if len(word) < 7 else word[:6]):
            if piece not in seen and piece != "##" and not any(c.isspace() for c in piece):
                seen.add(piece)
                vocab.append(piece)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8", newline="") as f:
        f.write("".join(p + "\n" for p in vocab))
    t = Tokenizer(models.WordPiece({p: i for i, p in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer, t.pre_tokenizer = norm, split
    t.add_special_tokens(vocab[:5])
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return t

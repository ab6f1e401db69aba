"""Byte-exact with the Hugging Face library: recorded cases, and random texts drawn fresh each run."""
import json
import os
import random
import sys

import pytest
from tokenizers import Tokenizer

sys.path.insert(0, os.path.dirname(__file__))
import tokenizers_ref as ref
from random_text import texts

N = int(os.environ.get("TOKENIZER_STRINGS", "5000"))


@pytest.fixture(scope="module")
def seed():
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"SEED={seed}")
    return seed


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("bert"))
    tokenizer = ref.wordpiece(folder, texts(1, 4000))
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    return folder


def show(bad, seed):
    return f"SEED={seed}: {len(bad)} differ, first: {bad[0]!r}" if bad else ""


def cases():
    with open("tests/data/xlmr_cases.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def test_recorded_texts():
    rows = [r for r in cases() if r.get("pair") is None]
    got = ref.ours(ref.XLMR, [{"text": r["text"]} for r in rows])
    assert len(rows) > 100
    for r, ids in zip(rows, got):
        assert [0, *ids, 2] == r["ids"], r["text"]


def test_recorded_pairs():
    rows = [r for r in cases() if r.get("pair") is not None]
    assert len(rows) > 200
    for key, options in (("ids", {"max_length": 1 << 20}), ("ids_longest_first", {"truncation": 2}),
                         ("ids_only_second", {"truncation": 1, "max_query": 508})):
        got = ref.ours(ref.XLMR, [{"query": r["text"], "doc": r["pair"], **options} for r in rows])
        n = 0
        for r, g in zip(rows, got):
            if r[key] is None:  # refused there: the query alone fills the window
                continue
            n += 1
            assert g[0] == r[key], (key, r["text"])
            assert g[1:] == [len(g[0]), len(r["ids"]), len(g[0]), int(len(g[0]) < len(r["ids"]))]
        assert n > 150


@pytest.mark.parametrize("folder", [ref.XLMR, ref.MINI])
def test_random_unigram(folder, seed):
    bad = ref.compare(folder, texts(seed, N))
    assert not bad, show(bad, seed)


def test_random_spans(seed):
    bad = ref.compare(ref.MINI, texts(seed + 1, N // 5), spans=True)
    assert not bad, show(bad, seed)


def test_random_wordpiece(bert, seed):
    bad = ref.compare(bert, texts(seed + 2, N))
    assert not bad, show(bad, seed)
    bad = ref.compare(bert, texts(seed + 3, N // 5), spans=True)
    assert not bad, show(bad, seed)


def test_sentencepiece_model(seed):
    bad = ref.compare(os.path.join(ref.XLMR, "spm"), texts(seed + 4, N // 5), tokenizer=ref.from_sentencepiece())
    assert not bad, show(bad, seed)


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt(tmp_path, lowercase, seed):
    folder = str(tmp_path)
    tokenizer = ref.wordpiece(folder, texts(2, 2000), lowercase)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"}, f)
    bad = ref.compare(folder, texts(seed + 5, N // 5), tokenizer=tokenizer)
    assert not bad, show(bad, seed)


def variant(rng, base):
    """The mini tokenizer with other components in front of its model, drawn at random."""
    def maybe(p, x):
        return [x] if rng.random() < p else []

    t = json.loads(json.dumps({k: v for k, v in base.items() if k != "model"}))
    charsmap = t["normalizer"]["normalizers"][0] if t["normalizer"]["type"] == "Sequence" else t["normalizer"]
    steps = maybe(0.5, charsmap) + maybe(0.2, {"type": "Nmt"}) + maybe(0.2, {"type": rng.choice(("NFC", "NFD"))})
    steps += maybe(0.3, {"type": rng.choice(("NFKC", "NFKD"))}) + maybe(0.2, {"type": "StripAccents"})
    steps += maybe(0.3, {"type": "Lowercase"}) + maybe(0.2, {
        "type": "BertNormalizer", "clean_text": rng.random() < 0.5, "handle_chinese_chars": rng.random() < 0.5,
        "strip_accents": rng.choice((None, True, False)), "lowercase": rng.random() < 0.5})
    rng.shuffle(steps)
    steps += maybe(0.4, {"type": "Strip", "strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.7})
    steps += maybe(0.4, {"type": "Replace", "pattern": rng.choice(
        ({"Regex": " {2,}"}, {"Regex": " +"}, {"String": " "}, {"String": "e"}, {"Regex": "x{3,}"})),
        "content": rng.choice(("▁", " ", "", "ab"))})
    t["normalizer"] = {"type": "Sequence", "normalizers": steps} if steps or rng.random() < 0.5 else None
    scheme = rng.choice(("always", "first", "never"))
    meta = {"type": "Metaspace", "replacement": rng.choice("▁▁_"), "prepend_scheme": scheme, "split": rng.random() < 0.7}
    splits = maybe(0.4, {"type": "WhitespaceSplit"}) + maybe(0.2, {"type": "Whitespace"})
    splits += maybe(0.2, {"type": "BertPreTokenizer"}) + maybe(0.2, {"type": "Punctuation", "behavior": "Isolated"})
    rng.shuffle(splits)
    splits += maybe(0.8, meta)
    t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": splits} if splits or rng.random() < 0.5 else None
    for token in t["added_tokens"]:
        token.update(lstrip=rng.random() < 0.3, rstrip=rng.random() < 0.3, single_word=rng.random() < 0.3,
                     normalized=rng.random() < 0.3)
    for content in ("the", "Straße", "ing", " of ", "中文", "É"):
        if rng.random() < 0.3:
            t["added_tokens"].append({
                "id": 0, "content": content, "single_word": rng.random() < 0.5, "lstrip": rng.random() < 0.3,
                "rstrip": rng.random() < 0.3, "normalized": rng.random() < 0.5, "special": rng.random() < 0.5})
    t["model"] = base["model"]
    return t


def test_random_pipelines(tmp_path, seed):
    with open("models/mini/tokenizer.json", encoding="utf-8") as f:
        base = json.load(f)
    rng = random.Random(seed + 6)
    for k in range(max(8, N // 500)):
        t = variant(rng, base)
        with open(tmp_path / "tokenizer.json", "w", encoding="utf-8") as f:
            json.dump(t, f)
        what = json.dumps({k: v for k, v in t.items() if k in ("pre_tokenizer", "added_tokens")}, ensure_ascii=False)
        steps = [s["type"] for s in (t["normalizer"] or {"normalizers": []})["normalizers"]]
        for spans in (False, True):
            bad = ref.compare(str(tmp_path), texts(seed + 7 + k, 200), spans=spans,
                              tokenizer=Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
            assert not bad, f"{show(bad, seed)} variant {k} spans {spans}: {steps} {what}"

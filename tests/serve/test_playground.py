"""The playground page in a real browser."""
import html
import re
import shutil
import subprocess

import pytest

from serving import MODEL, RERANK, Server

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def s():
    with Server("-m", MODEL, binary=RERANK) as server:
        yield server


def dom(s, query, tmp_path, *flags):
    """The page as it stands when its scripts have come to rest."""
    r = subprocess.run([BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                        f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--enable-logging=stderr",
                        "--v=0", *flags, "--dump-dom", s.url + "/" + query], capture_output=True, text=True,
                       timeout=90)
    assert "CONSOLE" not in r.stderr, [x for x in r.stderr.splitlines() if "CONSOLE" in x]
    return r.stdout


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_ranks_and_shows(s, tmp_path):
    page = dom(s, "?theme=dark", tmp_path)
    cards = re.findall(r'<li class="(.*?)">.*?<div class="rank">(\d+)</div><span class="delta.*?>(.*?)</span>'
                       r'.*?<div class="text">(.*?)</div>.*?<b>(.*?)</b>', page, re.S)
    assert [int(c[1]) for c in cards] == list(range(1, 8)) and cards[0][0] == "top"
    scores = [float(c[4]) for c in cards]
    assert scores == sorted(scores, reverse=True)
    assert any("▲" in c[2] for c in cards) and any("▼" in c[2] for c in cards)
    assert "passages a second" in page and "mini ·" in page
    docs = [html.unescape(c[3]) for c in cards]
    a = s.post("/v1/rerank", {"query": "Why do leaves change colour in autumn?", "documents": docs}).json
    assert [r["index"] for r in a["results"]] == list(range(7))


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_truncation_is_shown(s, tmp_path):
    assert "cut to 512" in dom(s, "?example=Long%20passage", tmp_path)


def test_page_is_self_contained(s):
    a = s.get("/")
    assert a.headers["content-type"].startswith("text/html")
    page = a.body.decode()
    assert not re.search(r'(src|href)="(https?:)?//', page) and "@import" not in page
    assert page.count("<script") == 1 and "innerHTML" not in page

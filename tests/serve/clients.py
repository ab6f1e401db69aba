"""clients.py URL NAME: rank one query with a real client; prints the scores in input order as JSON.

Runs in the environment of tools/requirements-clients.txt; test_clients.py starts it. Standard input
is {"query": .., "documents": [..]}."""
import json
import math
import sys

URL, NAME = sys.argv[1:3]
request = json.load(sys.stdin)
QUERY, DOCS = request["query"], request["documents"]


def in_order(pairs):
    scores = dict(pairs)
    assert sorted(scores) == list(range(len(DOCS))), scores
    assert [p[1] for p in pairs] == sorted((p[1] for p in pairs), reverse=True), "not sorted"
    return [scores[i] for i in range(len(DOCS))]


def cohere_v1():
    import cohere
    c = cohere.Client(api_key="x", base_url=URL)
    a = c.rerank(model="m", query=QUERY, documents=DOCS, return_documents=True)
    assert all(r.document.text == DOCS[r.index] for r in a.results)
    assert a.meta.billed_units.search_units == 1
    return in_order([(r.index, r.relevance_score) for r in a.results])


def cohere_v2():
    import cohere
    c = cohere.ClientV2(api_key="x", base_url=URL)
    assert len(c.rerank(model="m", query=QUERY, documents=DOCS, top_n=2).results) == 2
    try:
        c.rerank(model="m", query=QUERY, documents=[])
        raise AssertionError("an empty list was accepted")
    except cohere.errors.BadRequestError as e:
        assert e.body["message"]
    a = c.rerank(model="m", query=QUERY, documents=DOCS)
    return in_order([(r.index, r.relevance_score) for r in a.results])


def llama_index_tei():
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
    nodes = [NodeWithScore(node=TextNode(text=d, id_=str(i)), score=0.0) for i, d in enumerate(DOCS)]
    r = TextEmbeddingInference(base_url=URL, top_n=len(DOCS))
    got = r.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    return in_order([(int(n.node.node_id), float(n.score)) for n in got])


def haystack_tei():
    from haystack import Document
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
    ranker = HuggingFaceTEIRanker(url=URL, top_k=len(DOCS), token=None)
    got = ranker.run(query=QUERY, documents=[Document(content=d, meta={"i": i})
                                             for i, d in enumerate(DOCS)])["documents"]
    return in_order([(d.meta["i"], d.score) for d in got])


def langchain_jina():
    from langchain_community.document_compressors import jina_rerank
    jina_rerank.JINA_API_URL = URL + "/v1/rerank"
    r = jina_rerank.JinaRerank(jina_api_key="x", model="m")
    got = r.rerank(DOCS, QUERY, top_n=len(DOCS))
    return in_order([(x["index"], x["relevance_score"]) for x in got])


def langchain_infinity_shape():
    """What langchain's InfinityRerank needs of a result, asked as it asks."""
    import requests
    a = requests.post(URL + "/rerank", json={"query": QUERY, "documents": DOCS, "model": "m",
                                             "return_documents": False}).json()
    return in_order([(x["index"], x["relevance_score"]) for x in a["results"]])


def langchain_nvidia():
    from langchain_core.documents import Document
    from langchain_nvidia_ai_endpoints import NVIDIARerank
    name = json.load(__import__("urllib.request").request.urlopen(URL + "/info"))["model_id"]
    c = NVIDIARerank(base_url=URL + "/v1", model=name, api_key="x", top_n=len(DOCS), truncate="END")
    docs = [Document(page_content=d, metadata={"i": i}) for i, d in enumerate(DOCS)]
    got = c.compress_documents(documents=docs, query=QUERY)
    logits = in_order([(d.metadata["i"], d.metadata["relevance_score"]) for d in got])
    return [1 / (1 + math.exp(-x)) for x in logits]


def langchain_sagemaker():
    """The bytes that its SageMaker cross-encoder sends and how it reads the answer; AWS left out."""
    from urllib.request import urlopen
    from langchain_community.cross_encoders.sagemaker_endpoint import CrossEncoderContentHandler
    h = CrossEncoderContentHandler()
    return h.transform_output(urlopen(URL + "/invocations", h.transform_input([(QUERY, d) for d in DOCS])))


def voyage():
    import voyageai
    a = voyageai.Client(api_key="x", base_url=URL + "/voyage/v1").rerank(QUERY, DOCS, model="rerank-2")
    assert a.total_tokens > 0 and a.results[0].document == DOCS[a.results[0].index]
    return in_order([(r.index, r.relevance_score) for r in a.results])


def litellm(provider, **kw):
    import litellm as lite
    a = lite.rerank(model=provider + "/m", query=QUERY, documents=DOCS, top_n=len(DOCS),
                    api_base=kw.get("base", URL), api_key="x")
    return in_order([(r["index"], r["relevance_score"]) for r in a.results])


def litellm_cohere():
    return litellm("cohere", base=URL + "/v2/rerank")


def litellm_vllm():
    return litellm("hosted_vllm")


def litellm_huggingface():
    return litellm("huggingface")


def triton(binary):
    import numpy as np
    import tritonclient.http as tc
    c = tc.InferenceServerClient(URL.split("//")[1])
    assert c.is_server_live() and c.is_server_ready()
    name = json.load(__import__("urllib.request").request.urlopen(URL + "/info"))["model_id"]
    assert c.is_model_ready(name)
    assert c.get_model_metadata(name)["inputs"][0]["name"] == "query"
    inputs = []
    for key, texts in (("query", [QUERY]), ("documents", DOCS)):
        x = tc.InferInput(key, [len(texts)], "BYTES")
        x.set_data_from_numpy(np.array([t.encode() for t in texts], dtype=np.object_), binary_data=binary)
        inputs.append(x)
    out = [tc.InferRequestedOutput("scores", binary_data=binary)]
    scores = c.infer(name, inputs, outputs=out).as_numpy("scores")
    if binary:  # without outputs the client asks for binary ones by a parameter
        assert np.array_equal(c.infer(name, inputs).as_numpy("scores"), scores)
    c.close()
    return [float(s) for s in scores]


def triton_binary():
    return triton(True)


def triton_json():
    return triton(False)


print(json.dumps(globals()[NAME]()))

"""Programs that ask a model: short, complete and ready to run once the key's variable is set.

Answers are streamed where the API can, so that a timeout measures silence and not the length of an answer.
Retries are off: a repeated request would only wait behind the first one for the same model to load.
"""

from __future__ import annotations

import json
import shlex

from labctl.render.clients.target import CHATTING, KEY, Target

_QUESTION = [{"role": "user", "content": "Say hello."}]
_PAIR = ["the cat sat on the mat", "stocks fell today"]


def _python_key(target: Target) -> str:
    return f'os.environ["{KEY}"]' if target.asks_for_key else '"none"'


def _imports(target: Target, *lines: str) -> list[str]:
    return [*(["import os", ""] if target.asks_for_key else []), *lines]


def openai_python(target: Target) -> str:
    """Return a program for OpenAI's Python library."""
    first = target.models[0]
    lines = _imports(target, "import openai", "")
    lines += [
        "client = openai.OpenAI(",
        f"    base_url={target.base_url!r},",
        f"    api_key={_python_key(target)},",
        f"    # Seconds of silence: {target.slowest}.",
        f"    timeout=openai.Timeout({target.first_byte_s}, connect=10),",
        "    max_retries=0,",
        ")",
    ]
    if first.kind == "embedding":
        lines += [
            f"reply = client.embeddings.create(model={first.id!r}, input={_PAIR!r})",
            "print([len(one.embedding) for one in reply.data])",
        ]
    elif first.kind == "rerank":
        lines += [
            f"body = {{'model': {first.id!r}, 'query': 'animals', 'documents': {_PAIR!r}}}",
            "print(client.post('/rerank', cast_to=object, body=body))",
        ]
    else:
        lines += [
            "stream = client.chat.completions.create(",
            f"    model={first.id!r}, messages={_QUESTION!r}, stream=True",
            ")",
            "for chunk in stream:",
            "    if chunk.choices:",
            '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
            "print()",
        ]
    return "\n".join(lines)


def openai_node(target: Target) -> str:
    """Return a program for OpenAI's Node library, whose timeout is in milliseconds."""
    first = target.models[0]
    key = f"process.env.{KEY}" if target.asks_for_key else '"none"'
    lines = [
        'import OpenAI from "openai";',
        "",
        "const client = new OpenAI({",
        f"  baseURL: {json.dumps(target.base_url)},",
        f"  apiKey: {key},",
        f"  // Milliseconds until the headers: {target.slowest}.",
        f"  timeout: {target.first_byte_s * 1000},",
        "  maxRetries: 0,",
        "});",
    ]
    if first.kind == "embedding":
        body = json.dumps({"model": first.id, "input": _PAIR})
        lines += [
            f"const reply = await client.embeddings.create({body});",
            "console.log(reply.data.map((one) => one.embedding.length));",
        ]
    elif first.kind == "rerank":
        body = json.dumps({"model": first.id, "query": "animals", "documents": _PAIR})
        lines += [f'console.log(await client.post("/rerank", {{ body: {body} }}));']
    else:
        body = json.dumps({"model": first.id, "messages": _QUESTION, "stream": True})
        lines += [
            f"const stream = await client.chat.completions.create({body});",
            "for await (const chunk of stream) {",
            '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");',
            "}",
        ]
    return "\n".join(lines)


def langchain(target: Target) -> str:
    """Return a program for LangChain."""
    first = target.models[0]
    kind, extra = (
        ("ChatOpenAI", ["    streaming=True,"])
        if first.kind in CHATTING
        else (
            "OpenAIEmbeddings",
            ["    check_embedding_ctx_length=False,  # it would send token numbers of another model"],
        )
    )
    ask = (
        [
            "for chunk in model.stream('Say hello.'):",
            "    print(chunk.content, end='', flush=True)",
            "print()",
        ]
        if first.kind in CHATTING
        else [f"print([len(one) for one in model.embed_documents({_PAIR!r})])"]
    )
    return "\n".join(
        [
            *_imports(target, f"from langchain_openai import {kind}", ""),
            f"model = {kind}(",
            f"    model={first.id!r},",
            f"    base_url={target.base_url!r},",
            f"    api_key={_python_key(target)},",
            f"    # Seconds of silence: {target.slowest}.",
            f"    timeout={target.first_byte_s},",
            "    max_retries=0,",
            *extra,
            ")",
            *ask,
        ]
    )


def litellm(target: Target) -> str:
    """Return a program for LiteLLM as a library."""
    first = target.models[0]
    chats = first.kind in CHATTING
    call = "completion" if chats else "embedding"
    ask = f"    messages={_QUESTION!r}," if chats else f"    input={_PAIR!r},"
    show = (
        [
            "for chunk in reply:",
            '    print(chunk.choices[0].delta.content or "", end="", flush=True)',
            "print()",
        ]
        if chats
        else ["print([len(one['embedding']) for one in reply.data])"]
    )
    return "\n".join(
        [
            *_imports(target, "import litellm", ""),
            f"reply = litellm.{call}(",
            f"    model={'openai/' + first.id!r},",
            f"    api_base={target.base_url!r},",
            f"    api_key={_python_key(target)},",
            f"    # Seconds: {target.slowest}.",
            f"    timeout={target.first_byte_s},",
            "    num_retries=0,",
            ask,
            *(["    stream=True,"] if chats else []),
            ")",
            *show,
        ]
    )


def curl(target: Target) -> str:
    """Return a shell command; the key comes by standard input, since others can read a command line."""
    first = target.models[0]
    path, body = {
        "embedding": ("embeddings", {"model": first.id, "input": _PAIR}),
        "rerank": ("rerank", {"model": first.id, "query": "animals", "documents": _PAIR}),
    }.get(first.kind, ("chat/completions", {"model": first.id, "messages": _QUESTION, "stream": True}))
    key = [
        f'printf \'header = "Authorization: Bearer %s"\\n\' "${KEY}" |',
        "curl --config - \\",
    ]
    return "\n".join(
        [
            f"# A first answer may take {target.slowest}.",
            *(key if target.asks_for_key else ["curl \\"]),
            f"  --no-buffer --fail-with-body --connect-timeout 10 --max-time {target.whole_s} \\",
            "  --header 'Content-Type: application/json' \\",
            f"  --data {shlex.quote(json.dumps(body))} \\",
            f"  {shlex.quote(f'{target.base_url}/{path}')}",
        ]
    )

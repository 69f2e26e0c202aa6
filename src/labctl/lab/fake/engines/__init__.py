"""Doubles of vLLM and SGLang: the real llama-server behind a proxy that speaks as they do.

vLLM and SGLang need a GPU and gigabytes of libraries, so no test can run them. What labctl deals with is
their outside: a wheel, a program, its flags and their ``--help``, the order in which it starts and fails,
endpoints, and the names of metrics. ``double`` imitates that, and every token still comes from a real
llama-server. ``wheels`` packs it as wheels that are *called* ``vllm`` and ``sglang``, so that the way in
which labctl installs the real ones is tried as it is. They are doubles all the same: they compute on the
processor, with whatever GGUF file lies in the model's folder, and take most options only to know them.
"""

"""The inside of the wheels ``vllm`` and ``sglang`` of the lab; both are DOUBLES, see the package around.

Everything here runs on a host of the lab, in a virtual environment of its own, with prometheus_client and
the standard library alone. Imports are relative, because the package is called ``vllm.double`` or
``sglang.double`` there.
"""

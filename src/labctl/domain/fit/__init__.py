"""Will it fit? Bytes of weights, cache and buffers on each device, and the sets that are loaded together.

``terms`` holds the values that all of it speaks in; what computes with them lies beside it.
"""

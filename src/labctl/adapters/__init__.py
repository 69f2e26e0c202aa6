"""One side effect and one library each; strangers to each other, put together by ``labctl.wiring``."""

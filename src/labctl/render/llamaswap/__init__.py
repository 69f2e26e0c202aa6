"""llama-swap: its configuration from the rack's list of models, and its unit."""

from labctl.render.llamaswap.config import FOLDER, Config, config
from labctl.render.llamaswap.unit import llama_swap

__all__ = ["FOLDER", "Config", "config", "llama_swap"]

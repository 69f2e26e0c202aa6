"""What a host gets of the agent: the program as one file, and the line that limits the controller to it.

The agent is packed here and never used here: the same sources give the same bytes, so a plan says "no change"
where nothing changed.
"""

from __future__ import annotations

from labctl.agent.access import AGENT_PATH, authorized_keys_line
from labctl.agent.build import zipapp_bytes

PATH = AGENT_PATH

__all__ = ["PATH", "authorized_keys_line", "zipapp_bytes"]

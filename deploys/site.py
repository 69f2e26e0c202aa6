"""Everything, in order. Run it with ``labctl apply`` or ``pyinfra inventory/rack.py deploys/site.py``."""

from deploys.agent import agent
from deploys.base import base
from deploys.restart import restart
from deploys.services import services
from deploys.wol import wol

base()
agent()
restart()
services()
wol()

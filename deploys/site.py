"""Everything, in order. Run it with ``labctl apply`` or ``pyinfra inventory/rack.py deploys/site.py``.

Drivers come first, then the reboot that they may need, then what needs the drivers. Builds of engines come
before the choice of a backend, which tries them, and before the services that run them.
"""

from deploys.agent import agent
from deploys.backend import backend
from deploys.base import base
from deploys.cluster import cluster
from deploys.controller import controller
from deploys.engines import engines
from deploys.forced import forced
from deploys.gateway import gateway
from deploys.gateways import vector_stores
from deploys.health import health
from deploys.llamaswap import llama_swap
from deploys.nvidia import nvidia
from deploys.power import power
from deploys.restart import restart
from deploys.rocm import rocm
from deploys.services import services
from deploys.unified import unified
from deploys.vulkan import vulkan
from deploys.web import web
from deploys.wol import wol

base()
agent()
forced()
unified()
nvidia()
rocm()
vulkan()
restart()
power()
engines()
backend()
cluster()
services()
llama_swap()
vector_stores()
wol()
controller()
gateway()
health()
web()

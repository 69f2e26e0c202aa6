"""Wait until every node of a Ray cluster has joined; fail when time is up, and say who is missing.

labctl lays this file on the head, where it runs before vLLM, as vLLM's user, under the Python that holds Ray.
So it imports nothing of labctl.
"""

import argparse
import importlib
import sys
import time


def main() -> int:
    """Return 0 once all are there, 1 when time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--address", required=True, help="ADDRESS:PORT of the head")
    parser.add_argument("--timeout", required=True, type=float, help="seconds")
    parser.add_argument("nodes", nargs="+", help="NAME=ADDRESS of each node")
    asked = parser.parse_args()
    names: dict[str, str] = {}
    for node in asked.nodes:
        name, _, address = node.partition("=")
        names[address] = name
    until = time.monotonic() + asked.timeout
    said = ""
    while True:
        missing = sorted(set(names) - joined(asked.address))
        if not missing:
            say(f"all {len(names)} nodes of Ray cluster {asked.cluster} are there")
            return 0
        lacking = ", ".join(f"{names[address]} ({address})" for address in missing)
        if lacking != said:
            say(f"Ray cluster {asked.cluster} still lacks {lacking}")
            said = lacking
        if time.monotonic() >= until:
            say(
                f"Ray cluster {asked.cluster} lacks {lacking} after {asked.timeout:g} s: is it awake, and "
                "what does `systemctl status labctl-ray` say there?"
            )
            return 1
        time.sleep(1)


def say(line: str) -> None:
    """Tell the journal at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def joined(address: str) -> set[str]:
    """Return the addresses of the nodes that are alive; none while the head does not answer."""
    ray = importlib.import_module("ray")  # it is where this runs, and not where labctl is checked
    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
        say(f"the head does not answer: {str(error).splitlines()[0]}")
        return set()


if __name__ == "__main__":
    sys.exit(main())

"""Text for hosts: pure functions from the inventory to the files that labctl writes.

Rule: a template sees only what it is given, and a name that nobody gave is an error (StrictUndefined), never
an empty string in a firewall or a sudoers file. Nothing here reads a clock, the environment or a host; the
only input beside the arguments are the templates which ship with labctl. Every text opens with ``HEADER``: by
it labctl knows its own files again, and only a file that carries it is ever removed.
"""

from __future__ import annotations

from functools import lru_cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from labctl import content

HEADER = (
    "# Written by labctl from the rack inventory. Changes here are overwritten; use a drop-in (*.d/) instead."
)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(str(content.templates_dir())),
        undefined=StrictUndefined,
        # Nothing here is HTML: the texts are units and configuration files.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def text(template: str, **context: object) -> str:
    """Return ``templates/<template>`` filled with ``context`` below the header.

    Raises:
        jinja2.UndefinedError: the template uses a name that ``context`` lacks.
    """
    return f"{HEADER}\n{_environment().get_template(template).render(**context)}"

"""Who may log in to a host, and what they may become.

Two keys, two users. The operator's key provisions, so its user may become root. The controller's key may be
stolen
from an always-on box, so its user can do nothing but the agent's verbs: a forced command, no terminal, no
forwarding, and sudo for whole command lines without a wildcard. Passwords open nothing. The login in use is
never locked out: root keeps its key where labctl itself comes as root.
"""

from __future__ import annotations

import base64
import binascii
import re

from labctl import render
from labctl.agent.access import AGENT_PATH
from labctl.domain.problem import LabctlError

OPERATOR = "labctl"
AGENT_USER = "labctl-agent"
AGENT_HOME = "/var/lib/labctl-agent"
# The agent's verbs that need root and that the controller may ask for, each a whole command line.
# `caps --order`, which sets somebody's numbers, is not among them: it is for the operator, who is root. The
# numbers of `caps --step` can only lower a cap for a while, and end by themselves at the next boot or wake.
# Nor is `sleep`, which systemd starts.
ROOT_VERBS = (
    "caps",
    "caps --show",
    "caps --step",
    "suspend",
    "gate",
    "health",
    "mend --driver",
    "mend --engines",
    "mend --reboot",
)
# What its watch asks of root by itself, and no key opens at the door: when users' crontabs run, and not what.
INNER_VERBS = ("signals --crontabs",)
_VERB = re.compile(r"[a-z]+(?: --[a-z]+)*", re.ASCII)
OPERATOR_SUDOERS = "/etc/sudoers.d/90-labctl-operator"
AGENT_SUDOERS = "/etc/sudoers.d/90-labctl-agent"
SSHD = "ssh.service"
# sshd keeps the first value that it reads, so this name sorts before cloud-init's 50-.
SSHD_DROP_IN = "/etc/ssh/sshd_config.d/10-labctl.conf"

CHECK_SUDOERS = ("visudo", "-c", "-q", "-f")

_CHECK_SSHD = """\
set -eu
main=/etc/ssh/sshd_config
drop_ins='^[[:space:]]*Include[[:space:]]+"?(/etc/ssh/)?sshd_config\\.d/\\*\\.conf'
if ! grep -Eiq "$drop_ins" "$main"; then
  echo "$main does not include /etc/ssh/sshd_config.d/*.conf, so no drop-in has any effect:" \\
    "add 'Include /etc/ssh/sshd_config.d/*.conf' as its first line" >&2
  exit 1
fi
whole=$(mktemp /run/labctl-sshd.XXXXXXXX)
trap 'rm -f "$whole"' EXIT
cat -- "$1" >"$whole"
for part in /etc/ssh/sshd_config.d/*.conf; do
  # The file that is to be replaced may be the broken one.
  [ ! -e "$part" ] || [ "${part##*/}" = 10-labctl.conf ] || printf 'Include "%s"\\n' "$part" >>"$whole"
done
grep -Eiv "$drop_ins" "$main" >>"$whole" || true
mkdir -p -m 0755 /run/sshd
"$(command -v sshd || echo /usr/sbin/sshd)" -t -f "$whole"
"""
CHECK_SSHD = ("sh", "-c", _CHECK_SSHD, "labctl-sshd")
"""Checks the drop-in together with the whole configuration, as sshd would read it after the change.

``sshd -t`` alone reads only what is installed already, and ``sshd -t -f DROP-IN`` alone would not notice that
the rest of the configuration is broken, in which case the reload would end sshd. """


def sshd(login_user: str) -> str:
    """Return the sshd drop-in for a host that labctl enters as ``login_user``."""
    return render.text(
        "sshd.conf.j2", permit_root_login="prohibit-password" if login_user == "root" else "no"
    )


def operator_sudoers() -> str:
    """Return the rule by which the operator becomes root."""
    return render.text("sudoers-operator.j2", user=OPERATOR)


def agent_sudoers(verbs: tuple[str, ...]) -> str:
    """Return the rules for the agent's verbs that need root, one whole command line each.

    Raises:
        ValueError: it is not plain words, a verb and its flags, so sudo could read more into it than it says.
    """
    if bad := [verb for verb in verbs if not _VERB.fullmatch(verb)]:
        raise ValueError(f"not a verb with plain flags: {bad[0]!r}")
    return render.text(
        "sudoers-agent.j2", user=AGENT_USER, commands=[f"{AGENT_PATH} {verb}" for verb in verbs]
    )


def operator_key(*, private: bytes, public: str, name: str) -> str:
    """Return the line of the operator's public key for authorized_keys.

    Args:
        private: content of the private key file; only its public part is looked at.
        public: content of the file beside it.
        name: of the private key file, for the error.

    Raises:
        LabctlError: the two do not belong together, so the operator would be locked out.
    """
    words = public.split()
    blob = _decoded(words[1]) if len(words) >= 2 else b""
    body = [line for line in private.decode("ascii", "replace").splitlines() if "-----" not in line]
    # OpenSSH's own format holds the public part in the clear, also when a passphrase protects the rest.
    whole = _decoded("".join(body)) if b"BEGIN OPENSSH PRIVATE KEY" in private else blob
    if not blob or blob not in whole:
        raise LabctlError(
            f"{name}.pub is not the public key of {name}", hint=f"ssh-keygen -y -f {name} > {name}.pub"
        )
    return f"{words[0]} {words[1]} labctl-operator"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""

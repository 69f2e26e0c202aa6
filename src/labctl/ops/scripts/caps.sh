# caps.sh UNIT: the unit applies the caps and reads them back, so its end is the proof.
systemctl reset-failed -- "$1" 2>/dev/null || true
systemctl start -- "$1" || {
  journalctl --no-pager --quiet --output=cat --lines=40 --unit="$1" >&2 || true
  fail "not every card has its cap; on the host, this says which and why: /usr/local/lib/labctl/agent.pyz caps --show"
}

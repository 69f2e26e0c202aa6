# caps.sh UNIT: the unit applies the caps and reads them back, so its end is the proof.
systemctl reset-failed -- "$1" 2>/dev/null || true
systemctl start -- "$1" 2>/dev/null && exit 0
# The agent's answer is one line of JSON; of each card that is not right this leaves name, place and reason.
why=$(tr '{' '\n' </var/lib/labctl/caps/outcome.json 2>/dev/null |
  sed -n 's/.*"name": "\([^"]*\)", "slot": "*\([^",]*\).*"status": "\(failed\|refused\)", "why": "\([^"]*\)".*/\1 (\2): \4/p')
# What this run itself said; of systemd's words and of earlier runs nobody learns anything.
run=$(systemctl show -p InvocationID --value -- "$1" 2>/dev/null)
journalctl --no-pager --quiet --output=cat --lines=20 _SYSTEMD_INVOCATION_ID="$run" 2>/dev/null | grep -v '^{' >&2 || true
fail "not every card has its cap: ${why:-systemctl status $1 says more}"

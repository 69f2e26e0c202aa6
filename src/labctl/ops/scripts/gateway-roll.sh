# gateway-roll.sh SOCKET INSTANCES LISTEN UNIT...: have exactly these instances serve on that socket.
# INSTANCES is a pattern of systemctl's for all there may be, LISTEN is where it listens, by ss's words. The old
# ones go when the new ones are ready, and serve what they have to its end.
socket=$1 pattern=$2 listen=$3
shift 3
wanted=" $* "
olds() {
  {
    systemctl list-units --all --plain --no-legend --no-pager -- "$pattern" 2>/dev/null |
      while read -r unit _; do printf '%s\n' "$unit"; done
    for link in /etc/systemd/system/multi-user.target.wants/$pattern; do
      [ ! -L "$link" ] || printf '%s\n' "${link##*/}"
    done
  } | sort -u | while read -r unit; do
    case $wanted in *" $unit "*) ;; *) printf '%s\n' "$unit" ;; esac
  done
}
listens() {
  ss -Hltnp 2>/dev/null | grep -F '"systemd",pid=1,' | awk '{ print $4 }' | grep -qxF -- "$listen"
}
tell() {
  systemctl status --no-pager --full --lines=0 -- "$1" >&2 || true
  journalctl --no-pager --quiet --output=cat --lines=20 --unit="$1" >&2 || true
  fail "$1 $2"
}
systemctl daemon-reload
old=$(olds)
rest="the old ones serve on"
if ! listens; then
  # Whoever listens on the old address lets go of it first, and serves on what came by it.
  for unit in $old; do
    rest="nobody serves any more, since the address has changed"
    systemctl stop --no-block -- "$unit" 2>/dev/null || true
  done
  systemctl stop -- "$@" "$socket" 2>/dev/null || true
fi
systemctl -q --no-reload enable -- "$socket"
tries=0
until systemctl start -- "$socket" 2>/dev/null; do
  tries=$((tries + 1))
  [ "$tries" -lt 20 ] || tell "$socket" "cannot listen on $listen"
  systemctl reset-failed -- "$socket" 2>/dev/null || true
  sleep 0.5
done
for unit in "$@"; do
  systemctl reset-failed -- "$unit" 2>/dev/null || true
  if ! systemctl start -- "$unit"; then
    for other in "$@"; do systemctl stop --no-block -- "$other" 2>/dev/null || true; done
    tell "$unit" "does not start; $rest"
  fi
done
for unit in "$@"; do systemctl -q --no-reload enable -- "$unit"; done
for unit in $old; do systemctl stop --no-block -- "$unit" 2>/dev/null || true; done
for unit in $old; do systemctl -q --no-reload disable -- "$unit" 2>/dev/null || true; done
systemctl daemon-reload

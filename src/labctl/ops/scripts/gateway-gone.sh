# gateway-gone.sh HEADER SOCKET INSTANCES PATH...: stop listening, let instances serve what they have to its end,
# and remove the files of their units.
header=$1 socket=$2 pattern=$3
shift 3
for unit in "$@"; do
  [ -f "$unit" ] && [ ! -L "$unit" ] || fail "$unit is no regular file any more; it was left alone"
  head -n 3 -- "$unit" | grep -qF -- "$header" || fail "$unit no longer carries the header of labctl; it was left alone"
done
systemctl -q --no-reload disable -- "$socket" 2>/dev/null || true
systemctl stop -- "$socket" 2>/dev/null || true
for link in /etc/systemd/system/multi-user.target.wants/$pattern; do
  [ ! -L "$link" ] || rm -f -- "$link"
done
systemctl list-units --all --plain --no-legend --no-pager -- "$pattern" 2>/dev/null |
  while read -r unit _; do systemctl stop --no-block -- "$unit"; done
for unit in "$@"; do rm -f -- "$unit"; done
systemctl daemon-reload

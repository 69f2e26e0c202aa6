# gateway-facts.sh SOCKET INSTANCES: what runs, a line each: "socket STATE LISTEN", "instance UNIT STATE", and
# "enabled UNIT". INSTANCES is a pattern of systemctl's.
listen=$(systemctl show -p Listen --value -- "$1" 2>/dev/null || true)
state=$(systemctl show -p ActiveState --value -- "$1" 2>/dev/null || true)
printf 'socket %s %s\n' "${state:-inactive}" "${listen%% *}"
systemctl list-units --all --plain --no-legend --no-pager -- "$2" 2>/dev/null |
  while read -r unit _ active _; do printf 'instance %s %s\n' "$unit" "$active"; done
for link in /etc/systemd/system/multi-user.target.wants/$2; do
  [ ! -L "$link" ] || printf 'enabled %s\n' "${link##*/}"
done

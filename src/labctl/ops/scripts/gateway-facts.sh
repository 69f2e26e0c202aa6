# gateway-facts.sh SOCKET INSTANCES LISTEN: what runs, a line each: "socket STATE yes" if it listens on LISTEN (by
# ss's words), else "no"; "instance UNIT STATE"; "enabled UNIT". INSTANCES is a pattern of systemctl's.
# Not systemd's own word for where: after daemon-reload that is what its file says, whatever is open.
held=no
if ss -Hltnp 2>/dev/null | grep -F '"systemd",pid=1,' | awk '{ print $4 }' | grep -qxF -- "$3"; then held=yes; fi
state=$(systemctl show -p ActiveState --value -- "$1" 2>/dev/null || true)
printf 'socket %s %s\n' "${state:-inactive}" "$held"
systemctl list-units --all --plain --no-legend --no-pager -- "$2" 2>/dev/null |
  while read -r unit _ active _; do printf 'instance %s %s\n' "$unit" "$active"; done
for link in /etc/systemd/system/multi-user.target.wants/$2; do
  [ ! -L "$link" ] || printf 'enabled %s\n' "${link##*/}"
done

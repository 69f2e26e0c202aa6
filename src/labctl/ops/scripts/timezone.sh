# timezone.sh ZONE
[ -f "/usr/share/zoneinfo/$1" ] ||
  fail "this host knows no time zone $1; nothing was changed (timedatectl list-timezones shows them)"
require_private /etc
sweep /etc
tmp=$(mktemp -u -- /etc/.labctl-put.XXXXXXXXXX)
ln -s -- "/usr/share/zoneinfo/$1" "$tmp"
mv -f -T -- "$tmp" /etc/localtime
# Debian's own copy of the name, where there is one.
if [ -e /etc/timezone ]; then
  tmp=$(mktemp -- /etc/.labctl-put.XXXXXXXXXX)
  chmod 644 -- "$tmp"
  printf '%s\n' "$1" >"$tmp"
  sync -- "$tmp"
  mv -f -T -- "$tmp" /etc/timezone
fi
tmp=
sync -- /etc/

# remove-units.sh HEADER PATH...: systemd forgets how to stop a unit whose file is gone, so it stops first.
header=$1
shift
for unit in "$@"; do
  [ -f "$unit" ] && [ ! -L "$unit" ] || fail "$unit is no regular file any more; it was left alone"
  head -n 3 -- "$unit" | grep -qF -- "$header" || fail "$unit no longer carries the header of labctl; it was left alone"
  systemctl disable --now "${unit##*/}"
  rm -f -- "$unit"
done
systemctl daemon-reload
for unit in "$@"; do systemctl reset-failed "${unit##*/}" 2>/dev/null || :; done

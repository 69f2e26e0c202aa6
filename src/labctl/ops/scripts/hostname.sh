# hostname.sh NAME: in /etc/hostname, in the line 127.0.1.1 of /etc/hosts, and in the kernel.
# In a container either file may be mounted by itself; a mount cannot be replaced, only written.
replace() {
  chmod 644 -- "$tmp"
  sync -- "$tmp"
  mv -f -T -- "$tmp" "$1" 2>/dev/null || cat -- "$tmp" >"$1"
  rm -f -- "$tmp"
  tmp=
}
require_private /etc
sweep /etc
tmp=$(mktemp -- /etc/.labctl-put.XXXXXXXXXX)
printf '%s\n' "$1" >"$tmp"
replace /etc/hostname
tmp=$(mktemp -- /etc/.labctl-put.XXXXXXXXXX)
{ cat /etc/hosts 2>/dev/null || echo '127.0.0.1 localhost'; } | awk -v name="$1" '
  { found = 0; for (i = 2; i <= NF && $i !~ /^#/; i++) if ($i == name) found = 1 }
  $1 == "127.0.1.1" && !found && !done { $0 = "127.0.1.1\t" name }
  $1 == "127.0.1.1" { done = 1 }
  { print }
  END { if (!done) print "127.0.1.1\t" name }' >"$tmp"
replace /etc/hosts
sync -- /etc/
hostname "$1"

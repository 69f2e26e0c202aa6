# firewall.sh UNIT TABLE MARKER
systemctl reload-or-restart "$1" || fail "$1 could not load its rules; systemctl status $1 says why"
nft list chain inet "$2" "$3" >/dev/null || fail "$1 ended well, but the kernel does not run its rules"

# directory.sh PATH MODE OWNER; missing parents belong to root and are readable by all.
if [ -e "$1" ] || [ -L "$1" ]; then
  [ -d "$1" ] || fail "$1 exists and is no directory; nothing was changed"
else
  parent=${1%/*}
  (umask 022 && mkdir -p -- "$parent/")
  mkdir -m 700 -- "$1"
fi
chown -- "$3" "$1"
chmod -- "$2" "$1"

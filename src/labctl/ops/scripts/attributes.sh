# attributes.sh KIND DEST MODE OWNER; chown comes first because it clears setuid bits.
if [ "$1" = directory ]; then
  [ -d "$2" ] || fail "$2 is no directory any more; nothing was changed"
else
  { [ -f "$2" ] && [ ! -L "$2" ]; } || fail "$2 is no regular file any more; nothing was changed"
fi
chown -- "$4" "$2"
chmod -- "$3" "$2"

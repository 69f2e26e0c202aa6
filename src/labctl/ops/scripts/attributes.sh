# attributes.sh KIND DEST MODE OWNER [STAMP]; chown comes first because it clears setuid bits.
# STAMP is download.sh's proof about DEST: if it holds now, it shall hold afterwards.
if [ "$1" = directory ]; then
  [ -d "$2" ] || fail "$2 is no directory any more; nothing was changed"
else
  { [ -f "$2" ] && [ ! -L "$2" ]; } || fail "$2 is no regular file any more; nothing was changed"
fi
sum=
if [ -n "${5-}" ] && [ -f "$5" ]; then
  read -r was sum <"$5" || sum=
  [ "$was" = "$(stat -c '%d:%i:%s:%.9Y:%.9Z' -- "$2")" ] || sum=
fi
chown -- "$4" "$2"
chmod -- "$3" "$2"
[ -z "$sum" ] || printf '%s %s\n' "$(stat -c '%d:%i:%s:%.9Y:%.9Z' -- "$2")" "$sum" >"$5"

# engine-link.sh LINK NAME KEEP [NOTE...]: lead LINK to NAME beside it; the old one is kept as the link KEEP, "" for
# none. NOTEs say who runs what LINK leads to and is owed a restart.
link=$1 name=$2 keep=$3
shift 3
shelf=${link%/*}
require_private "$shelf"
[ -d "$shelf/$name" ] || fail "there is no $shelf/$name to lead $link to; nothing was changed"
if [ -e "$link" ] && [ ! -L "$link" ]; then
  fail "$link is no link; it was left alone"
fi
lead() {
  tmp=$(mktemp -u -- "$shelf/.labctl-put.XXXXXXXXXX")
  ln -s -- "$2" "$tmp"
  mv -f -T -- "$tmp" "$1"
  tmp=
}
sweep "$shelf"
for note in "$@"; do note_stale "$note"; done
was=$(readlink -- "$link" || true)
if [ -n "$keep" ] && [ -n "$was" ] && [ "$was" != "$name" ] && [ -d "$shelf/$was" ]; then
  lead "$shelf/$keep" "$was"
fi
lead "$link" "$name"
sync -- "$shelf"

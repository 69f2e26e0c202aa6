# link.sh PATH TARGET
dir=${1%/*}
[ -n "$dir" ] || dir=/
require_private "$dir"
if [ -d "$1" ] && [ ! -L "$1" ]; then
  fail "$1 is a directory; nothing was changed"
fi
sweep "$dir"
# ln never overwrites, so a name that is merely unpredictable is safe here.
tmp=$(mktemp -u -- "$dir/.labctl-put.XXXXXXXXXX")
ln -s -- "$2" "$tmp"
mv -f -T -- "$tmp" "$1"
tmp=
sync -- "$dir"

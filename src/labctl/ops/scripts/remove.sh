# remove.sh PATH HEADER NOTE: looks again before it removes; the file may have changed since the plan.
[ -f "$1" ] && [ ! -L "$1" ] || fail "$1 is no regular file any more; it was left alone"
head -n 3 -- "$1" | grep -qF -- "$2" || fail "$1 no longer carries the header of labctl; it was left alone"
note_stale "$3"
rm -f -- "$1"
sync -- "${1%/*}/"

# put.sh DEST MODE OWNER NOTE QUIET [VALIDATE...]
dest=$1 mode=$2 owner=$3 note=$4 quiet=$5
shift 5
stage "$dest" "$mode" "$owner"
if [ $# -gt 0 ]; then
  if [ -n "$quiet" ]; then
    "$@" "$tmp" </dev/null >/dev/null 2>&1 || fail "the check of the new $dest by $1 failed; nothing was changed"
  else
    "$@" "$tmp" </dev/null >&2 || fail "the check of the new $dest by $1 failed; nothing was changed"
  fi
fi
note_stale "$note"
commit "$dest"

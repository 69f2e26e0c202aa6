# engine-venv.sh TARGET DIGEST PROGRAM NOTES UV PYTHON CACHE SOURCE [OPTION...]; the requirements come on stdin.
# SOURCE is a folder that becomes TARGET/src, "" for none; OPTIONs go to uv and say where packages come from.
target=$1 digest=$2 program=$3 notes=$4 uv=$5 python=$6 cache=$7 source=$8
shift 8
shelf=${target%/*}
(umask 022 && mkdir -p -- "$shelf" "$cache")
require_private "$shelf"
[ ! -L "$target" ] || fail "$target is a symbolic link; it was left alone"
if [ -e "$target" ] && [ ! -f "$target/.labctl-build" ]; then
  fail "$target was not made by labctl; it was left alone (move it away, or choose another version)"
fi
[ -x "$python" ] || fail "there is no $python on this host (install it, or say another in PythonEnv(python=...))"
work=
trap '[ -z "$tmp" ] || rm -f -- "$tmp"; [ -z "$work" ] || rm -rf -- "$work"' EXIT
rm -rf -- "$shelf"/.labctl-new.*
work=$(mktemp -d -- "$shelf/.labctl-new.XXXXXXXX")
stage "$work/requirements.txt" 600 -
commit "$work/requirements.txt"
umask 022
uv() {
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent LANG=C.UTF-8 \
    UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 UV_CACHE_DIR="$cache" \
    "$uv" "$@" </dev/null >"$work/said" 2>&1 ||
    fail "uv could not make $target: $(tail -n 8 -- "$work/said" | tr -s ' \n' '  '); nothing was changed"
}
# Relocatable, since it is made under another name than it gets: its programs find their Python beside them.
uv venv --quiet --no-project --relocatable --python "$python" "$work/env"
uv pip install --quiet --python "$work/env/bin/python" --require-hashes "$@" -r "$work/requirements.txt"
[ -x "$work/env/$program" ] || fail "the requirements bring no $program; nothing was changed"
[ -z "$source" ] || cp -a -- "$source" "$work/env/src"
chmod -R u+rwX,go+rX,go-w -- "$work/env"
chmod 755 -- "$work"
printf '%s\n' "$digest" >"$work/env/.labctl-build"
sync -f -- "$work/env" 2>/dev/null || sync
for note in $notes; do note_stale "$note"; done
if [ -e "$target" ]; then
  mv -T -- "$target" "$(mktemp -u -- "$shelf/.labctl-old.XXXXXXXX")"
fi
mv -T -- "$work/env" "$target"
sync -- "$shelf"

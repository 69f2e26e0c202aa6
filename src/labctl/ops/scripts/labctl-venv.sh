# labctl-venv.sh TARGET DIGEST NOTES PYTHON [OPTION...]; a tar.gz of requirements.txt and src/ comes on stdin.
# OPTIONs go to pip and say where packages come from.
target=$1 digest=$2 notes=$3 python=$4
shift 4
shelf=${target%/*}
(umask 022 && mkdir -p -- "$shelf")
require_private "$shelf"
[ ! -L "$target" ] || fail "$target is a symbolic link; it was left alone"
if [ -e "$target" ] && [ ! -f "$target/.labctl-build" ]; then
  fail "$target was not made by labctl; it was left alone (move it away)"
fi
[ -x "$python" ] || fail "there is no $python on this host (install it, or say another in Controller(python=...))"
work=
trap '[ -z "$tmp" ] || rm -f -- "$tmp"; [ -z "$work" ] || rm -rf -- "$work"' EXIT
rm -rf -- "$shelf"/.labctl-new.*
work=$(mktemp -d -- "$shelf/.labctl-new.XXXXXXXX")
stage "$work/bundle.tar.gz" 600 -
commit "$work/bundle.tar.gz"
umask 022
run() {
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/nonexistent LANG=C.UTF-8 \
    PIP_CONFIG_FILE=/dev/null PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    "$@" </dev/null >"$work/said" 2>&1 ||
    fail "$1 could not make $target: $(tail -n 8 -- "$work/said" | tr -s ' \n' '  '); nothing was changed"
}
mkdir -- "$work/env"
run tar -xzf "$work/bundle.tar.gz" --no-same-owner -C "$work/env"
run "$python" -m venv --symlinks "$work/env"
run "$work/env/bin/python" -I -m pip install --quiet --require-hashes --only-binary :all: --root-user-action=ignore \
  "$@" -r "$work/env/requirements.txt"
# It is made under another name than it gets, so the path to labctl itself is written last, as it will be.
packages=$("$work/env/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$target/src" >"$packages/labctl.pth"
chmod -R u+rwX,go+rX,go-w -- "$work/env"
chmod 755 -- "$work"
PYTHONPATH="$work/env/src" "$work/env/bin/python" -c 'import labctl.cli.main' >"$work/said" 2>&1 ||
  fail "labctl does not start there: $(tail -n 3 -- "$work/said" | tr -s ' \n' '  '); nothing was changed"
# The gateway's user may write no caches, and compiling at each start costs it memory for good. They are found
# by the paths of their sources, which are about to change.
run env PYTHONPATH="$work/env/src" "$work/env/bin/python" -OO -X pycache_prefix="$work/pyc" \
  -m labctl.cli.gateway_run --compile
mkdir -p -- "$work/env/pyc${target%/*}"
cp -a -- "$work/pyc/." "$work/env/pyc/"
mv -T -- "$work/env/pyc$work/env" "$work/env/pyc$target"
rm -rf -- "$work/env/pyc$work"
printf '%s\n' "$digest" >"$work/env/.labctl-build"
sync -f -- "$work/env" 2>/dev/null || sync
for note in $notes; do note_stale "$note"; done
if [ -e "$target" ]; then
  mv -T -- "$target" "$(mktemp -u -- "$shelf/.labctl-old.XXXXXXXX")"
fi
mv -T -- "$work/env" "$target"
sync -- "$shelf"

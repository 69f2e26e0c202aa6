# apt.sh install|remove STATE LOCK_S MAX_AGE_S NAME...; STATE is /var/lib outside of tests.
action=$1 state=$2 lock_s=$3 max_age_s=$4
shift 4
umask 022
export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_MODE=l
read -r up _ </proc/uptime
deadline=$((${up%.*} + lock_s))
stamp=$state/apt/periodic/update-success-stamp
# apt writes to a file, not to us: a cut connection then breaks no pipe in the middle of dpkg.
tmp=$(mktemp)

left() {
  read -r up _ </proc/uptime
  s=$((deadline - ${up%.*}))
  [ "$s" -gt 0 ] || s=0
  printf '%s' "$s"
}

locked() {
  grep -Eq '^E: (Could not get lock|Unable to (acquire|lock))|lock (was|is) locked by another process' "$tmp"
}

# try COMMAND...: run it; while another process holds a lock, again, until the time for locks is over.
try() {
  while :; do
    rc=0
    "$@" >"$tmp" 2>&1 </dev/null || rc=$?
    [ "$rc" != 0 ] || return 0
    locked || return "$rc"
    if [ "$(left)" = 0 ]; then
      cat "$tmp" >&2
      fail "apt is locked by another process and still was after $lock_s s; nothing was changed by this step"
    fi
    sleep 1
  done
}

must() {
  try "$@" || {
    cat "$tmp" >&2
    fail "$1 ${2-} failed (exit $rc)"
  }
}

apt() {
  apt-get -q -y -o DPkg::Lock::Timeout="$(left)" -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

update() {
  must apt update
  updated=1
  mkdir -p -- "${stamp%/*}"
  : >"$stamp"
}

broken() {
  [ -n "$(ls -A -- "$state/dpkg/updates" 2>/dev/null)" ] || 
    dpkg-query -W -f='${db:Status-Abbrev}\n' 2>/dev/null | grep -Eq '^.[HUFWt]|^..R'
}

updated=
interrupted=
if broken; then
  interrupted=1
  printf 'labctl: dpkg was interrupted earlier; repairing\n'
  try dpkg --configure -a --force-confdef --force-confold || true
fi
if [ "$action" = install ]; then
  set -- install --no-install-recommends -- "$@"
  newest=$(find "$state/apt/lists" -maxdepth 1 -name '*Release' -size +0 -print -quit 2>/dev/null)
  fresh=$(find "$stamp" -newermt "-$max_age_s seconds" 2>/dev/null || true)
  if [ -z "$newest" ] || [ -z "$fresh" ]; then update; fi
else
  set -- remove -- "$@"
fi
if [ -n "$interrupted" ] && broken; then must apt -f install; fi
if ! try apt "$@"; then
  if [ -z "$updated" ] && grep -Eq '^E: (Unable to locate|Package .* has no installation candidate|Failed to fetch|Unable to fetch)' "$tmp"; then
    update
    must apt "$@"
  else
    cat "$tmp" >&2
    fail "apt-get $1 failed (exit $rc)"
  fi
fi
cat "$tmp"

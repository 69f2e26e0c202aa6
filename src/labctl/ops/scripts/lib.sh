# Shared by the scripts beside it; each of them is sent as lib.sh followed by itself.
set -eu
umask 077
LC_ALL=C
export LC_ALL

fail() {
  printf 'labctl: %s\n' "$*" >&2
  exit 1
}

# Anyone else who can write the directory could swap the temporary file for a link to /etc/shadow.
# Sets `shared` when the directory is sticky: others may then write beside us, but not touch what is ours.
require_private() {
  [ -d "$1" ] || fail "the directory $1 does not exist; nothing was changed (create it first with files.directory)"
  shared=
  # shellcheck disable=SC2046
  set -- "$1" $(stat -Lc '%u %g 0%a' -- "$1") "$(id -u)"
  [ "$2" = 0 ] || [ "$2" = "$5" ] ||
    fail "$1 belongs to another user (uid $2), who could redirect the write; nothing was changed (give it to root with files.directory)"
  if [ $(($4 & 01000)) -ne 0 ]; then
    shared=1
  elif [ $(($4 & 02)) -ne 0 ] || { [ $(($4 & 020)) -ne 0 ] && [ "$3" != 0 ] && [ "$3" != "$(id -g)" ]; }; then
    fail "others may write in $1 (mode $4), and could redirect the write; nothing was changed (tighten it with files.directory)"
  fi
}

# What a killed earlier run left behind. In a shared directory only what is ours is touched.
sweep() {
  for old in "$1"/.labctl-put.*; do
    if [ -L "$old" ]; then
      [ -n "$shared" ] || rm -f -- "$old"
    elif [ -f "$old" ] && { [ -z "$shared" ] || [ -O "$old" ]; }; then
      rm -f -- "$old"
    fi
  done
}

# A unit that must be restarted is noted below /run before its file changes, so that a run which is cut in
# between restarts it next time. A reboot clears the note, rightly.
note_stale() {
  [ -n "$1" ] || return 0
  (umask 022 && mkdir -p -- "${1%/*}")
  : >"$1"
}

tmp=
trap '[ -z "$tmp" ] || rm -f -- "$tmp"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# stage DEST MODE OWNER: leave the content, which comes on stdin after its sha256, complete and on disk in $tmp.
stage() {
  dir=${1%/*}
  [ -n "$dir" ] || dir=/
  require_private "$dir"
  if [ -d "$1" ] && [ ! -L "$1" ]; then
    fail "$1 is a directory; nothing was changed"
  fi
  sweep "$dir"
  # Validators such as systemd-analyze and apt-get judge a file by its suffix.
  case ${1##*/} in ?*.*) suffix=.${1##*.} ;; *) suffix= ;; esac
  tmp=$(mktemp --suffix="$suffix" -- "$dir/.labctl-put.XXXXXXXXXX")
  exec 3>"$tmp"
  [ "$3" = - ] || chown -- "$3" "$tmp"
  chmod -- "$2" "$tmp"
  IFS= read -r want || fail "no content arrived for $1; nothing was changed"
  base64 -d >&3 || fail "could not write the new $1; nothing was changed"
  exec 3>&-
  have=$(sha256sum <"$tmp")
  [ "${have%% *}" = "$want" ] || fail "the content of $1 arrived incomplete or damaged; nothing was changed"
}

# commit DEST: put $tmp in its place, durably; readers see the old file or the new one.
commit() {
  sync -- "$tmp"
  mv -f -T -- "$tmp" "$1"
  tmp=
  sync -- "${1%/*}/"
}

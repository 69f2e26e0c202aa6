# engine-old.sh list|remove ROOT [KEEP...]: builds of labctl's below ROOT that are neither kept, nor current, nor the
# one before, nor in use by any process. Folders without labctl's mark are somebody else's.
what=$1 root=$2
shift 2
used() {
  grep -qsF -- "$1/" /proc/[0-9]*/maps && return 0
  for process in /proc/[0-9]*; do
    for link in exe cwd root; do
      case $(readlink -- "$process/$link" 2>/dev/null) in "$1" | "$1"/*) return 0 ;; esac
    done
    # Python reads its modules without mapping them.
    ! tr '\0' '\n' 2>/dev/null <"$process/cmdline" | grep -qF -- "$1/" || return 0
  done
  return 1
}
wanted() {
  here=$1
  shift
  for keep in "$@"; do [ "$keep" != "$here" ] || return 0; done
  for link in "${here%/*}/current" "${here%/*}/previous"; do
    [ ! -L "$link" ] || [ "${here%/*}/$(readlink -- "$link")" != "$here" ] || return 0
  done
  return 1
}
for mark in "$root"/*/*/.labctl-build "$root"/*/*/*/.labctl-build \
  "$root"/*/.labctl-old.*/.labctl-build "$root"/*/*/.labctl-old.*/.labctl-build; do
  [ -f "$mark" ] || continue
  folder=${mark%/*}
  # The same build is found again behind the links that lead to it.
  if [ -L "$folder" ] || [ -L "${folder%/*}" ]; then continue; fi
  ! wanted "$folder" "$@" || continue
  ! used "$folder" || continue
  if [ "$what" = remove ]; then
    # Without its mark it is no build any more, should this be cut.
    rm -rf -- "${folder%/*}/.labctl-new.gone"
    mv -T -- "$folder" "${folder%/*}/.labctl-new.gone"
    rm -rf -- "${folder%/*}/.labctl-new.gone"
  else
    printf '%s\n' "$folder"
  fi
done

# holds.sh NOTE LOCK_S -- HOLD... -- RELEASE... -- STAY...: the note first, so that no hold is ever without one.
note=$1 lock_s=$2 part=0 hold='' release='' stay=''
shift 2
for word in "$@"; do
  # Names of packages hold neither blanks nor characters that a shell would expand.
  case $word in
    --) part=$((part + 1)) ;;
    *) case $part in 1) hold="$hold $word" ;; 2) release="$release $word" ;; *) stay="$stay $word" ;; esac ;;
  esac
done
(umask 022 && mkdir -p -- "${note%/*}")

write() {
  tmp=$(mktemp -- "${note%/*}/.labctl-put.XXXXXXXXXX")
  for name in "$@"; do printf '%s\n' "$name"; done | sort -u >"$tmp"
  chmod 644 -- "$tmp"
  commit "$note"
}

# mark VERB NAME...: while another package manager works, again, until the time for locks is over.
mark() {
  verb=$1
  shift
  [ $# -gt 0 ] || return 0
  read -r up _ </proc/uptime
  deadline=$((${up%.*} + lock_s))
  while ! out=$(apt-mark "$verb" "$@" 2>&1); do
    read -r up _ </proc/uptime
    case $out in *lock*) ;; *) deadline=0 ;; esac
    if [ "${up%.*}" -ge "$deadline" ]; then
      printf '%s\n' "$out" >&2
      fail "apt-mark $verb failed"
    fi
    sleep 1
  done
  printf '%s\n' "$out"
}

installed=
for name in $hold; do
  # What the plan expected and did not come is not held; the next run asks again.
  case $(dpkg-query -W -f='${db:Status-Abbrev}' -- "$name" 2>/dev/null) in
    h?*) stay="$stay $name" ;;
    ?i*) installed="$installed $name" ;;
  esac
done
# shellcheck disable=SC2086
{
  write $stay $installed $release
  mark unhold $release
  mark hold $installed
  write $stay $installed
}

# download.sh DEST SHA256 MODE OWNER STAMP SIZE TOKEN_FOR PINNED URL...
# TOKEN_FOR is the one of the addresses that gets the token, which comes on stdin; "" for none. PINNED is where
# the inventory says the sha256, for people; "" where nobody knows.
dest=$1 want=$2 mode=$3 owner=$4 stamp=$5 size=$6 token_for=$7 pinned=$8
shift 8
dir=${dest%/*}
[ -n "$dir" ] || dir=/
require_private "$dir"
[ -z "$shared" ] || fail "others may write beside $dest; download into a directory of root's own"
[ ! -d "$dest" ] || [ -L "$dest" ] || fail "$dest is a directory; nothing was changed"
command -v curl >/dev/null || fail "curl is not installed there; add it to the host's packages"
token=
if [ -n "$token_for" ]; then
  IFS= read -r token || fail "no token arrived for $token_for; nothing was changed"
fi

# A pull of labctl's may be at work in the same folder.
exec 9<"$dir"
if command -v flock >/dev/null; then
  flock -n 9 || fail "another labctl fetches into $dir now; wait for it, then run it again; $dest was not changed"
fi

# The name says what it will be, so that the next run goes on where this one was cut. Only root writes here.
part=$dir/.labctl-get.$(printf '%.32s' "$want")
[ ! -L "$part" ] || rm -f -- "$part"

# curl reads the token from its stdin. It sends it to the host of the address alone, not along redirections.
ask() {
  if [ "$url" = "$token_for" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$token"
  fi | curl -K - -gfsSL --proto '=https,http,file' --proto-redir '=https,http' --connect-timeout 20 "$@" -- "$url"
}

sum() {
  have=$(sha256sum <"$part")
  have=${have%% *}
  [ "$have" = "$want" ]
}

# Refuse before the first byte what could not fit. A size that nobody tells is not checked.
gate() {
  need=$size
  if [ -z "$need" ]; then
    need=$(ask -I --max-time 60 2>/dev/null | tr -d '\r' |
      awk 'tolower($1) == "content-length:" { size = $2 } END { print size }') || need=
  fi
  case $need in '' | *[!0-9]*) return 0 ;; esac
  here=$(stat -c %s -- "$part")
  df -PB1 -- "$dir" | awk -v need="$need" -v here="$here" -v dir="$dir" 'NR == 2 {
    spare = $2 / 20
    if (spare > 1073741824) spare = 1073741824
    if (need - here > $4 - spare) {
      printf "%s needs %.0f bytes more and has %.0f free, of which %.0f stay free", dir, need - here, $4, spare
      exit 1
    }
  }'
}

# As many blocks of 512 bytes as may come before the reserve is touched: who tells a size may send more.
most() {
  here=$(stat -c %s -- "$part" 2>/dev/null) || here=0
  df -PB1 -- "$dir" | awk -v here="$here" 'NR == 2 {
    spare = $2 / 20
    if (spare > 1073741824) spare = 1073741824
    room = $4 - spare
    printf "%.0f", (here + (room > 0 ? room : 0)) / 512
  }'
}

fetch() {
  rc=0
  room=$(most)
  code=$(ulimit -f "$room" 2>/dev/null || true
    ask --speed-limit 1 --speed-time 60 --retry 3 --retry-connrefused -C - -o "$part" \
    -w '%{response_code}') || rc=$?
  case $rc in
    0) ;;
    23 | 153)
      rm -f -- "$part"
      df -P -- "$dir" >&2 || true
      fail "could not write to $dir: No space left on device, or another write error; $dest was not changed"
      ;;
    *) return "$rc" ;;
  esac
}

notes=
strange=
note() {
  notes="${notes:+$notes; }$1"
  return 1
}

# try: have in $part what $url gives, if that is what is wanted; else note why not.
try() {
  resumed=
  [ ! -s "$part" ] || resumed=1
  if ! fetch; then
    # A server that cannot resume, or a part longer than the file: once more from the start.
    case $resumed$rc$code in
      122416 | 133* | 136*) ;;
      *) note "could not fetch $url (curl exit $rc)" || return 1 ;;
    esac
    rm -f -- "$part"
    resumed=
    fetch || note "could not fetch $url (curl exit $rc)" || return 1
  fi
  sum && return 0
  if [ -n "$resumed" ]; then
    rm -f -- "$part"
    fetch || note "could not fetch $url (curl exit $rc)" || return 1
    sum && return 0
  fi
  rm -f -- "$part"
  strange=1
  note "refused: $url has the sha256 $have, expected $want"
}

got=
: >>"$part"
chmod 600 -- "$part"
if [ -s "$part" ] && sum; then
  got=1
else
  for url in "$@"; do
    : >>"$part"
    if ! full=$(gate); then
      [ -s "$part" ] || rm -f -- "$part"
      fail "the disk is too small for $dest: $full (No space left on device); nothing was changed"
    fi
    if try; then
      got=1
      break
    fi
  done
fi
if [ -z "$got" ]; then
  if [ -s "$part" ]; then
    fail "$notes; $dest was not changed, and the next run goes on from here"
  fi
  rm -f -- "$part"
  [ -z "$strange" ] || notes="$notes; replace that file, or correct the sha256${pinned:+ at $pinned}"
  fail "$notes; $dest was not changed"
fi
[ -z "$notes" ] || printf 'labctl: %s\n' "$notes; it came from $url" >&2
chown -- "$owner" "$part"
chmod -- "$mode" "$part"
sync -- "$part"
mv -f -T -- "$part" "$dest"
sync -- "$dir"
rm -f -- "$part.parts"
# Proof for later runs that this very file was verified; any change to it moves its ctime.
(umask 022 && mkdir -p -- "${stamp%/*}")
printf '%s %s\n' "$(stat -c '%d:%i:%s:%.9Y:%.9Z' -- "$dest")" "$want" >"$stamp"
rm -f -- "$stamp.found"

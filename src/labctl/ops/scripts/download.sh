# download.sh URL DEST SHA256 MODE OWNER STAMP
url=$1 dest=$2 want=$3 mode=$4 owner=$5 stamp=$6
dir=${dest%/*}
[ -n "$dir" ] || dir=/
require_private "$dir"
[ -z "$shared" ] || fail "others may write beside $dest; download into a directory of root's own"
[ ! -d "$dest" ] || [ -L "$dest" ] || fail "$dest is a directory; nothing was changed"
command -v curl >/dev/null || fail "curl is not installed there; add it to the host's packages"

# The name says what it will be, so that the next run goes on where this one was cut. Only root writes here.
part=$dir/.labctl-get.$(printf '%.32s' "$want")
[ ! -L "$part" ] || rm -f -- "$part"

sum() {
  have=$(sha256sum <"$part")
  [ "${have%% *}" = "$want" ]
}

fetch() {
  rc=0
  curl -fsSL --proto '=https,http,file' --proto-redir '=https,http' --connect-timeout 20 \
    --speed-limit 1 --speed-time 60 --retry 3 --retry-connrefused -C - -o "$part" -- "$url" </dev/null || rc=$?
  case $rc in
    0) ;;
    23)
      rm -f -- "$part"
      df -P -- "$dir" >&2 || true
      fail "could not write to $dir: No space left on device, or another write error; $dest was not changed"
      ;;
    *) return "$rc" ;;
  esac
}

not_fetched() {
  if [ -s "$part" ]; then
    fail "could not fetch $url (curl exit $rc); the next run goes on from here"
  fi
  rm -f -- "$part"
  fail "could not fetch $url (curl exit $rc); $dest was not changed"
}

resumed=
[ ! -s "$part" ] || resumed=1
: >>"$part"
chmod 600 -- "$part"
if [ -z "$resumed" ] || ! sum; then
  if ! fetch; then
    # A server that cannot resume, or a part longer than the file: once more from the start.
    case $rc in
      22 | 33 | 36) [ -n "$resumed" ] || not_fetched ;;
      *) not_fetched ;;
    esac
    rm -f -- "$part"
    resumed=
    fetch || not_fetched
  fi
  if ! sum && [ -n "$resumed" ]; then
    rm -f -- "$part"
    fetch || not_fetched
    sum || true
  fi
  if [ "${have%% *}" != "$want" ]; then
    rm -f -- "$part"
    fail "refused: $url has the sha256 ${have%% *}, expected $want; $dest was not changed"
  fi
fi
chown -- "$owner" "$part"
chmod -- "$mode" "$part"
sync -- "$part"
mv -f -T -- "$part" "$dest"
sync -- "$dir"
# Proof for later runs that this very file was verified; any change to it moves its ctime.
(umask 022 && mkdir -p -- "${stamp%/*}")
printf '%s %s\n' "$(stat -c '%d:%i:%s:%.9Y:%.9Z' -- "$dest")" "$want" >"$stamp"

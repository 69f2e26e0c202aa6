# vendor-key.sh DEST URL FINGERPRINT READER: fetch a vendor's key and keep it only if it is the expected one.
dest=$1
require_private "${dest%/*}"
sweep "${dest%/*}"
tmp=$(mktemp -- "${dest%/*}/.labctl-put.XXXXXXXXXX")
curl -fsSL --proto '=https,http,file' --connect-timeout 15 --max-time 60 --max-filesize 262144 -o "$tmp" -- "$2" ||
  fail "the key at $2 could not be fetched; nothing was changed"
found=$(python3 -I -c "$4" "$tmp" 2>&1) || fail "what $2 holds is no key: $(printf '%s' "$found" | tail -n 1); nothing was changed"
[ "$found" = "$3" ] || fail "the key at $2 has the fingerprint $found, expected $3; nothing was changed"
chmod 644 "$tmp"
commit "$dest"

# llamaswap-put.sh DEST NOTE PROGRAM SECONDS [WORD...]: put a configuration in place once the program itself took it.
# On stdin: the trial's configuration in base64 on one line, then the content as `stage` wants it. Each WORD is an
# argument for systemd-run, by which the trial gets the variables that the service has.
dest=$1 note=$2 program=$3 limit=$4
shift 4
IFS= read -r trial || fail "no content arrived for $dest; nothing was changed"
stage "$dest" 644 root:root
[ -x "$program" ] || fail "there is no program $program to try the new $dest with; nothing was changed"
work=$(mktemp -d /run/labctl-trial.XXXXXXXX)
unit=labctl-trial-${work##*.}
trap 'systemctl stop -- "$unit.service" 2>/dev/null || true; rm -rf -- "$work"; [ -z "$tmp" ] || rm -f -- "$tmp"' EXIT
chmod 755 "$work"
printf '%s' "$trial" | base64 -d >"$work/config.yaml"
chmod 644 "$work/config.yaml"
# In a network of its own: whatever it listens on disturbs nobody, and nobody can ask it.
systemd-run --quiet --wait --pipe --collect --service-type=exec --no-ask-password --unit="$unit" \
  --description="labctl tries $dest" -p DynamicUser=yes -p PrivateNetwork=yes -p ProtectHome=read-only \
  -p "RuntimeMaxSec=$limit" -p TimeoutStopSec=5 -p LimitCORE=0 "$@" \
  -- "$program" -config "$work/config.yaml" -listen 127.0.0.1:0 </dev/null >"$work/out" 2>&1 &
job=$!
until grep -q 'llama-swap listening' "$work/out"; do
  if ! kill -0 "$job" 2>/dev/null; then
    # Its word on what is wrong; the path in it is that of the trial.
    said=$(grep -aE '(^|[ =])ERROR ' "$work/out" | sed 's/.* error=//' | tail -n 1)
    [ -n "$said" ] || said=$(tail -n 3 "$work/out")
    fail "$program refuses the new $dest: $said; nothing was changed"
  fi
  sleep 0.05
done
note_stale "$note"
systemctl show -p InvocationID --value -- "${note##*/}" >"$note"
commit "$dest"

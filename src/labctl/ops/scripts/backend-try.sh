# backend-try.sh BACKEND PROGRAM SECONDS, a model on stdin: a short decode in a unit of its own, and how it ended.
backend=$1 program=$2 limit=$3
work=$(mktemp -d /run/labctl-backend.XXXXXXXX)
trap 'rm -rf -- "$work"' EXIT
IFS= read -r want
base64 -d >"$work/model.gguf"
have=$(sha256sum <"$work/model.gguf")
[ "${have%% *}" = "$want" ] || fail "the model arrived incomplete or damaged"
chmod 755 "$work"
chmod 644 "$work/model.gguf"
# The other backend is hidden, since an engine may have been built for both.
case $backend in
  rocm) hide=GGML_VK_VISIBLE_DEVICES= ;;
  *) hide='HIP_VISIBLE_DEVICES=-1 ROCR_VISIBLE_DEVICES=-1' ;;
esac
case $program in /home/* | /root/*) home=read-only ;; *) home=yes ;; esac
case ${program##*/} in
  *server*)
    # The server's words go to stderr, so that stdout is its answer alone.
    serve='"$1" --model "$2" --host 127.0.0.1 --port 9931 --n-gpu-layers 99 --ctx-size 512 --verbose >&2 &
      pid=$!
      until curl -sf http://127.0.0.1:9931/health >/dev/null; do kill -0 "$pid" 2>/dev/null || { wait "$pid"; exit $?; }; sleep 0.2; done
      curl -sS -m "$3" -d "{\"prompt\":\"labctl\",\"n_predict\":32,\"ignore_eos\":true,\"temperature\":0}" http://127.0.0.1:9931/completion
      kill "$pid" 2>/dev/null
      wait "$pid"; ended=$?
      [ "$ended" = 143 ] || exit "$ended"'
    set -- /bin/sh -c "$serve" labctl-backend "$program" "$work/model.gguf" "$limit"
    ;;
  *) set -- "$program" -m "$work/model.gguf" -p 0 -n 32 -r 2 -ngl 99 -o jsonl -v ;;
esac
groups=
for group in video render; do ! getent group "$group" >/dev/null || groups="$groups $group"; done
rc=0
timeout -k 10 $((limit + 30)) systemd-run --wait --pipe --collect --service-type=exec --no-ask-password \
  --unit="labctl-backend-$backend" --description="labctl tries $backend" \
  -p DynamicUser=yes -p "SupplementaryGroups=$groups" -p "RuntimeMaxSec=$limit" -p TimeoutStopSec=10 \
  -p MemoryMax=50% -p MemorySwapMax=0 -p TasksMax=1024 -p LimitCORE=0 -p LimitFSIZE=64M -p Nice=5 \
  -p PrivateNetwork=yes -p "ProtectHome=$home" -p DevicePolicy=closed -p 'DeviceAllow=char-drm rwm' \
  -p 'DeviceAllow=char-kfd rwm' -p "Environment=$hide HOME=/tmp XDG_CACHE_HOME=/tmp" \
  -- "$@" </dev/null >"$work/out" 2>"$work/err" || rc=$?
printf 'at %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
case $rc in 124 | 137) printf 'result timeout\n' ;; esac
# Behind the engine's last words, which may lack the end of their line.
sed -n 's/.*Finished with result: /result /p' "$work/err" | tail -n 1
sed -n 's/.*Main processes terminated with: /detail /p' "$work/err" | tail -n 1
# The server's answer is one line, which holds what was generated and all settings before its timings.
for stream in out err; do
  tail -c 131072 "$work/$stream" | tr -cd '\11\12\40-\176' | cut -c 1-16000 | sed "s/^/$stream /"
done

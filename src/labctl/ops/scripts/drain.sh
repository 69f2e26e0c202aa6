# drain.sh SECONDS [PORT...]: succeed once nobody uses this host, or fail with who does when SECONDS are over.
# Services of labctl may run (a reboot ends them in order), but not while a client is connected to a PORT.
left=$1
shift

# The session that asks is not somebody else's.
own=$(sed -n 's/.*session-\([^./]*\)\.scope.*/\1/p' /proc/self/cgroup | head -n 1)

people() {
  if ! sessions=$(loginctl list-sessions --no-legend 2>/dev/null); then
    # Without logind, terminals at least are known.
    who | while read -r name line _; do printf 'user %s is logged in (%s); ' "$name" "$line"; done
    return
  fi
  printf '%s\n' "$sessions" | while read -r id _; do
    [ -n "$id" ] || continue
    [ "$id" != "$own" ] || continue
    what=$(loginctl show-session "$id" -p Class -p State 2>/dev/null) || continue
    case $what in *Class=user*) ;; *) continue ;; esac
    case $what in *State=closing*) continue ;; esac
    printf 'user %s is logged in (session %s); ' "$(loginctl show-session "$id" -p Name --value)" "$id"
  done
}

computing() {
  find /proc/[0-9]*/fd -lname '/dev/nvidia[0-9]*' -o -lname /dev/kfd -o -lname '/dev/dri/renderD*' 2>/dev/null |
    cut -d/ -f3 | sort -u | while read -r pid; do
    if grep -q '/labctl-[^/]*\.service' "/proc/$pid/cgroup" 2>/dev/null; then continue; fi
    read -r comm <"/proc/$pid/comm" 2>/dev/null || continue
    # The kernel cuts names at 15 characters. These keep the driver or watch it, and never end by themselves.
    case $comm in
      nvidia-persiste* | nvidia-powerd | nv-fabricmanage* | nv-hostengine | dcgm-exporter | nvidia_gpu_expo*) ;;
      *) printf 'process %s (%s) uses a graphics card; ' "$pid" "$comm" ;;
    esac
  done
}

connected() {
  for port in "$@"; do
    clients=$(ss -Htn state established "sport = :$port" | wc -l)
    [ "$clients" -eq 0 ] || printf '%s clients are connected to port %s; ' "$clients" "$port"
  done
}

# systemctl asks inhibitors too, but it also takes our own session for somebody at work.
inhibited() {
  # WHO UID USER PID COMM WHAT WHY MODE: who and why may hold blanks, and so may the name, of 15 characters.
  systemd-inhibit --list --no-legend 2>/dev/null |
    sed -nE 's/^(.*[^ ]) +[0-9]+ +[^ ]+ +([0-9]+) +.{1,15} +([a-z-]+:)*shutdown(:[a-z-]+)* .* block *$/\1 (process \2)/p' |
    while read -r who; do
      printf '%s forbids a shutdown (systemd-inhibit --list); ' "$who"
    done
}

[ $# -eq 0 ] || command -v ss >/dev/null || fail "whether clients are connected cannot be told: apt install iproute2"
while :; do
  busy=$(people; computing; connected "$@"; inhibited)
  [ -n "$busy" ] || exit 0
  [ "$left" -gt 0 ] || fail "not rebooted, since it is in use: ${busy%; }"
  sleep 2
  left=$((left - 2))
done

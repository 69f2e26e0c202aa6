# drain.sh SECONDS [PORT...]: succeed once nobody uses this host, or fail with who does when SECONDS are over.
# Services of labctl may run (a reboot ends them in order), but not while a client is connected to a PORT.
left=$1
shift

# The session that asks is not somebody else's.
own=$(sed -n 's/.*session-\([^./]*\)\.scope.*/\1/p' /proc/self/cgroup | head -n 1)

people() {
  loginctl list-sessions --no-legend 2>/dev/null | while read -r id _; do
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
    [ "$comm" = nvidia-persiste ] || printf 'process %s (%s) uses a graphics card; ' "$pid" "$comm"
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
  systemd-inhibit --list --no-legend 2>/dev/null | grep 'shutdown.* block *$' | while read -r who _; do
    printf '%s forbids a shutdown (systemd-inhibit --list); ' "$who"
  done
}

while :; do
  busy=$(people; computing; connected "$@"; inhibited)
  [ -n "$busy" ] || exit 0
  [ "$left" -gt 0 ] || fail "not rebooted, since it is in use: ${busy%; }"
  sleep 2
  left=$((left - 2))
done

# apt-update.sh LOCK_S FILE: fetch the lists of this one source file; fails unless all are there and signed.
umask 022
read -r up _ </proc/uptime
deadline=$((${up%.*} + $1))
while :; do
  rc=0
  out=$(apt-get -q update -o Dir::Etc::sourcelist="$2" -o Dir::Etc::sourceparts=- \
    -o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any 2>&1 </dev/null) || rc=$?
  case $out in *'E: Could not get lock'* | *'E: Unable to lock'*) ;; *) break ;; esac
  read -r up _ </proc/uptime
  [ "${up%.*}" -lt "$deadline" ] || break
  sleep 1
done
printf '%s\n' "$out" >&2
exit "$rc"

# engine-facts.sh TARGET: the processor, and what is at TARGET; never fails.
set +e
printf 'arch %s\n' "$(uname -m)"
if [ -L "$1" ]; then
  echo 'kind link'
elif [ -d "$1" ]; then
  echo 'kind directory'
elif [ -e "$1" ]; then
  echo 'kind file'
else
  echo 'kind absent'
fi
[ ! -r /sys/module/nvidia/version ] || printf 'driver %s\n' "$(head -n 1 /sys/module/nvidia/version)"
[ ! -r "$1/.labctl-build" ] || printf 'digest %s\n' "$(head -n 1 -- "$1/.labctl-build")"
exit 0

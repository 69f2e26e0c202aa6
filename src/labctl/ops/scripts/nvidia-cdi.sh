# nvidia-cdi.sh SPEC UNIT: by the toolkit's own unit, which writes SPEC itself, else by the toolkit.
if [ -n "$2" ]; then
  systemctl start -- "$2"
  [ ! -e "$1" ] || exit 0
fi
(umask 022 && mkdir -p -- "${1%/*}" && nvidia-ctk cdi generate --output="$1")

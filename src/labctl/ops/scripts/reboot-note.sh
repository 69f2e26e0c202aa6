# Arguments: DIRECTORY, then FILE REASON pairs. Notes lie below /run, so a reboot forgets them, rightly.
notes=$1
shift
(umask 022 && mkdir -p -- "$notes")
while [ $# -gt 1 ]; do
  printf '%s\n' "$2" >"$notes/.$1"
  mv -f -- "$notes/.$1" "$notes/$1"
  shift 2
done

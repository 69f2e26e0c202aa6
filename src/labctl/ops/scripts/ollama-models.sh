# ollama-models.sh list|create PROGRAM ADDRESS STAMPS [NAME FILE MARK]...: models that Ollama's server at ADDRESS does
# not know as they are declared (list), or make them known (create). MARK says what FILE and its weights were.
what=$1 program=$2 address=$3 stamps=$4
shift 4
home=$(mktemp -d)
trap 'rm -rf -- "$home"' EXIT
ask() {
  env -i PATH=/usr/bin:/bin HOME="$home" OLLAMA_HOST="$address" timeout 3600 "$program" "$@" </dev/null
}
stamp_of() {
  name=$(printf '%s' "$1" | sha256sum)
  printf '%s/%.32s' "$stamps" "$name"
}
if [ "$what" = create ]; then
  tries=0
  until ask list >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "Ollama does not answer at $address"
    sleep 0.5
  done
  (umask 022 && mkdir -p -- "$stamps")
fi
while [ $# -ge 3 ]; do
  stamp=$(stamp_of "$1")
  if [ "$what" = create ]; then
    ask create "$1" -f "$2" >&2 || fail "Ollama could not take $1 from $2"
    printf '%s\n' "$3" >"$stamp"
  elif [ "$(cat -- "$stamp" 2>/dev/null)" != "$3" ] || ! ask show "$1" >/dev/null 2>&1; then
    printf '%s\n' "$1"
  fi
  shift 3
done

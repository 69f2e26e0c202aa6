# remove-within.sh FOLDER PATH...: files that lie directly in a folder of labctl's own.
folder=$1
shift
require_private "$folder"
for path in "$@"; do
  [ "${path%/*}" = "$folder" ] || fail "$path does not lie in $folder; it was left alone"
  rm -f -- "$path"
done
sync -- "$folder"

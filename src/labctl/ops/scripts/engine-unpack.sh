# engine-unpack.sh TARGET DIGEST PROGRAM NOTES ARCHIVE...: unpack verified archives beside TARGET, then take its place.
# The first archive must hold PROGRAM; further ones bring what lies beside it. NOTES say who runs it and is owed a restart.
target=$1 digest=$2 program=$3 notes=$4
shift 4
umask 022
shelf=${target%/*}
mkdir -p -- "$shelf"
require_private "$shelf"
[ ! -L "$target" ] || fail "$target is a symbolic link; it was left alone"
if [ -e "$target" ] && [ ! -f "$target/.labctl-build" ]; then
  fail "$target was not made by labctl; it was left alone (move it away, or choose another version)"
fi

work=
trap '[ -z "$work" ] || rm -rf -- "$work"' EXIT
# What a killed run left behind; only this run is at work here, since the host is locked.
rm -rf -- "$shelf"/.labctl-new.*
work=$(mktemp -d -- "$shelf/.labctl-new.XXXXXXXX")

# roomy BYTES ARCHIVE: a few bytes can hold a disk full of zeros.
roomy() {
  df -PB1 -- "$work" | awk -v need="$1" 'NR == 2 {
    spare = $2 / 20
    if (spare > 1073741824) spare = 1073741824
    exit !(need <= $4 - spare)
  }' || fail "the disk is too small: $2 unpacks to $1 bytes, and $shelf has no room for them (No space left on device)"
}

# A name that leads out of the folder is refused, not bent into it.
sane() {
  if grep -Eq '(^/|(^|/)\.\.(/|$))' "$work/names"; then
    fail "refused: $1 holds a name that leads out of its folder: $(grep -E '(^/|(^|/)\.\.(/|$))' "$work/names" | head -n 1)"
  fi
}

unzip='
import os, stat, sys, zipfile
source, into = sys.argv[1:]
with zipfile.ZipFile(source) as held:
    space = os.statvfs(into)
    spare = min(space.f_blocks * space.f_frsize // 20, 1 << 30)
    if sum(one.file_size for one in held.infolist()) > space.f_bavail * space.f_frsize - spare:
        sys.exit("the disk is too small for what it holds: No space left on device")
    for one in held.infolist():
        mode = one.external_attr >> 16
        if stat.S_ISLNK(mode) or one.filename.startswith("/") or ".." in one.filename.split("/"):
            sys.exit(f"{one.filename!r} is a link or leads out of its folder")
        path = held.extract(one, into)
        if not one.is_dir():
            os.chmod(path, 0o755 if mode & 0o111 else 0o644)
'

# unpack ARCHIVE INTO: by what it is, not by what it is called.
unpack() {
  mkdir -- "$2"
  case $(head -c 4 -- "$1" | od -An -tx1 | tr -d ' \n') in
    1f8b*) how=--gzip ;;
    28b52ffd) how=--zstd ;;
    fd377a58) how=--xz ;;
    504b0304)
      python3 -I -c "$unzip" "$1" "$2" >&2 || fail "refused: ${1##*/} cannot be unpacked"
      return
      ;;
    7f454c46 | 2321*)
      [ "$2" = "$work/tree" ] || fail "refused: ${1##*/} is a program, where an archive was expected"
      mkdir -p -- "$(dirname -- "$2/$program")"
      cp -- "$1" "$2/$program"
      chmod 755 -- "$2/$program"
      return
      ;;
    *) fail "refused: ${1##*/} is no archive that labctl knows (tar.gz, tar.zst, tar.xz, zip) and no program" ;;
  esac
  tar "$how" -tf "$1" --quoting-style=escape >"$work/names" || fail "refused: ${1##*/} cannot be read as an archive"
  sane "${1##*/}"
  tar "$how" -tvf "$1" --numeric-owner --quoting-style=escape >"$work/sizes"
  roomy "$(awk '/^-/ { sum += $3 } END { printf "%.0f", sum }' "$work/sizes")" "${1##*/}"
  tar "$how" -xf "$1" -C "$2" --no-same-owner --no-same-permissions --delay-directory-restore ||
    fail "${1##*/} could not be unpacked (No space left on device, or a damaged archive)"
}

# Nothing but files, folders and links within; a device, a pipe or a link that leaves has no business here.
only_within() {
  odd=$(find "$1" ! -type f ! -type d ! -type l -print -quit)
  [ -z "$odd" ] || fail "refused: the archive holds ${odd#"$1"/}, which is a device, a pipe or a socket"
  odd=$(find "$1" -name '*[[:cntrl:]]*' -print -quit | tr -cd '\40-\176')
  [ -z "$odd" ] || fail "refused: the archive holds a name with control characters"
  find "$1" -type l >"$work/links"
  while IFS= read -r link; do
    to=$(readlink -m -- "$link")
    case $to in
      "$1" | "$1"/*) ;;
      *) fail "refused: the link ${link#"$1"/} in the archive leads out of its folder" ;;
    esac
  done <"$work/links"
}

# only_folder TREE: print the one folder that is all of TREE, if that is so.
only_folder() {
  [ "$(find "$1" -mindepth 1 -maxdepth 1 | wc -l)" = 1 ] || return 0
  find "$1" -mindepth 1 -maxdepth 1 -type d
}

unpack "$1" "$work/tree"
shift
only_within "$work/tree"
tree=$work/tree
if [ ! -e "$tree/$program" ]; then
  inner=$(only_folder "$tree")
  [ -z "$inner" ] || tree=$inner
fi
if [ ! -f "$tree/$program" ]; then
  fail "refused: the archive holds no $program"
fi
number=0
for archive in "$@"; do
  number=$((number + 1))
  unpack "$archive" "$work/more$number"
  only_within "$work/more$number"
  more=$work/more$number
  inner=$(only_folder "$more")
  # A folder of the archive's own is a wrapping; one that the program has too (lib) is not.
  if [ -n "$inner" ] && [ ! -d "$tree/${inner##*/}" ]; then
    more=$inner
  fi
  cp -a --no-clobber -- "$more/." "$tree/" || fail "${archive##*/} could not be laid beside $program"
done
# What was wrapped in a folder, or laid beside, has another top now, and its links must not leave that either.
only_within "$tree"
chown -R -h root:root -- "$tree" 2>/dev/null || [ "$(id -u)" != 0 ] || fail "could not give $tree to root"
chmod -R u+rwX,go+rX,go-w,u-s,g-s -- "$tree"
chmod 755 -- "$tree/$program"
# The archive may hold something by that name, and be it a link.
rm -rf -- "$tree/.labctl-build"
printf '%s\n' "$digest" >"$tree/.labctl-build"
sync -f -- "$tree" 2>/dev/null || sync
for note in $notes; do note_stale "$note"; done
if [ -e "$target" ]; then
  # It may be in use: it goes when nobody uses it any more.
  mv -T -- "$target" "$(mktemp -u -- "$shelf/.labctl-old.XXXXXXXX")"
fi
mv -T -- "$tree" "$target"
sync -- "$shelf"

# user.sh NAME create|modify|keep HOME KEYS MAKE_KEYS OPTION...; the options are useradd's or usermod's.
# HOME is "make" or "". KEYS is "write" or "": the content of authorized_keys then comes on stdin, and
# MAKE_KEYS is the script that writes it, run with the rights of the user, who may have planted links there.
name=$1 action=$2 home=$3 keys=$4 make_keys=$5
shift 5
umask 022
case $action in
  create)
    # useradd refuses a name whose group exists already.
    if getent group "$name" >/dev/null; then set -- "$@" -g "$name"; else set -- "$@" -U; fi
    useradd "$@" -- "$name"
    ;;
  modify) usermod "$@" -- "$name" ;;
esac
line=$(getent passwd "$name") || fail "the user $name does not exist"
IFS=: read -r _ _ uid gid _ dir _ <<END
$line
END
if [ "$home" = make ] && [ ! -e "$dir" ]; then
  (mkdir -p -- "${dir%/*}/" && mkdir -m 700 -- "$dir")
  [ ! -d /etc/skel ] || cp -rT -- /etc/skel "$dir"
  chown -R -h -- "$uid:$gid" "$dir"
  chmod 750 -- "$dir"
fi
if [ "$keys" = write ]; then
  [ -d "$dir" ] || fail "the home directory $dir of $name does not exist"
  if [ "$uid" = "$(id -u)" ]; then
    sh -c "$make_keys" labctl-keys "$dir"
  else
    setpriv --reuid="$uid" --regid="$gid" --init-groups -- sh -c "$make_keys" labctl-keys "$dir"
  fi
fi

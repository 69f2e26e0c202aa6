# group.sh NAME [OPTION...]
name=$1
shift
umask 022
groupadd "$@" -- "$name"

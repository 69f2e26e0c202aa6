# keys.sh HOME: write HOME/.ssh/authorized_keys from stdin, with the rights of the user whose home it is.
cd /
ssh=$1/.ssh
[ -d "$ssh" ] || mkdir -m 700 -- "$ssh"
chmod go-w -- "$ssh"
stage "$ssh/authorized_keys" 600 -
commit "$ssh/authorized_keys"

#!/bin/sh
# The first process of a lab's host that has graphics cards: shows the cards where the kernel would, then becomes
# systemd. Everything that is shown lies in /opt/lab/gpu, which the lab owns; see labctl/lab/gpus.py.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
gpu=/opt/lab/gpu
tree=$gpu/tree
[ ! -d "$gpu/mnt/sys" ] || tree=$gpu/mnt

# sysfs takes no new folders, not even as mount points; a skeleton over it has them.
mount -o remount,rw /sys
mkdir -p /sys/module
for part in class bus devices; do
  mount -t overlay -o "ro,lowerdir=$gpu/skeleton/$part:/sys/$part" lab-gpu "/sys/$part"
done
for part in class/drm class/hwmon class/kfd bus/pci devices/pci0000:00 module; do
  [ ! -d "$tree/sys/$part" ] || mount --bind "$tree/sys/$part" "/sys/$part"
done
mount -o remount,ro /sys
mount --bind "$tree/proc/driver" /proc/driver
# A kernel that was built without modules has no such file.
[ ! -e /proc/modules ] || mount --bind "$tree/proc/modules" /proc/modules

# The numbers are those of /dev/null, so that no card of the machine outside can ever be reached by them.
node() {
  mkdir -p "$(dirname "$1")"
  [ -e "$1" ] || mknod -m "$2" "$1" c 1 3
  chgrp "$3" "$1" 2>/dev/null || chmod o+rw "$1"
}
while read -r path mode group; do
  node "$path" "$mode" "$group"
done <"$gpu/nodes"

[ ! -x /opt/lab/sleep/init ] || exec /opt/lab/sleep/init
exec /usr/lib/systemd/systemd "$@"

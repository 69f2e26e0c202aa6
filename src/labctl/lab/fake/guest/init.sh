#!/bin/busybox sh
# shellcheck shell=dash
# The first process of a virtual machine of the lab: finds the disk, and on its first boot makes it this host's own.
# It says on the console what goes wrong, since there is nobody else yet who could.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /root
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
if $b grep -q lab.probe /proc/cmdline; then
  $b echo "the guest runs"
  $b poweroff -f
fi
for module in $($b cat /modules/order); do $b insmod "/modules/$module"; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 1000 ]; do
  $b usleep 10000
  tries=$((tries + 1))
done
$b mount -t ext4 -o rw,noatime /dev/vda /root || exec $b sh
if [ ! -e /root/var/lib/lab/furnished ]; then
  $b cp -a /identity/. /root/
  $b mkdir -p /root/var/lib/lab
  : >/root/var/lib/lab/furnished
fi
$b mount --move /dev /root/dev
$b umount /proc
exec $b switch_root /root /usr/lib/systemd/systemd

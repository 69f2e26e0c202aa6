#!/bin/sh
# The first process of a lab's host that can sleep: shows the files of its power management and its card's where the
# kernel would, then becomes systemd. They answer from the lab; see labctl/lab/powerfs.py. A host that has graphics
# cards, too, comes here with its own skeleton of /sys laid already.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
lab=/opt/lab/sleep
card=/sys/devices/virtual/net/eth0/device

mount -o remount,rw /sys
mkdir -p /sys/power
mount --bind "$lab/live/power" /sys/power
if [ ! -d "$card" ]; then
  # sysfs takes no new folders, not even as mount points; a skeleton over it has them.
  for part in class devices; do
    mount -t overlay -o "ro,lowerdir=$lab/skeleton/$part:/sys/$part" lab-sleep "/sys/$part"
  done
fi
mount --bind "$lab/live/rtc" /sys/class/rtc
mount --bind "$lab/live/power-of-card" "$card/power"
mount -o remount,ro /sys

exec "${@:-/usr/lib/systemd/systemd}"

#!/bin/sh
# Gives the card of a virtual machine the address that the lab chose.
{ read -r address && read -r gateway; } </etc/lab-network
ip link set lo up
ip address add "$address" brd + dev eth0
ip link set eth0 up
ip route add default via "$gateway"
# The driver of this card (8139cp, cp_init_hw) disarms it when it is brought up, after udev has armed it as the .link
# file says. Drivers of today's cards do not, and hosts shall be like those: so udev does its part again.
udevadm test-builtin net_setup_link /sys/class/net/eth0 >/dev/null 2>&1 || true

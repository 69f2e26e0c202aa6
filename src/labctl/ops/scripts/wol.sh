# wol.sh INTERFACE: the card may accept the order and stay deaf, so it is asked again.
ethtool -s "$1" wol g
ethtool "$1" | grep -q '^[[:space:]]*Wake-on: .*g' ||
  fail "$1 was told to listen for magic packets but does not report that it does"

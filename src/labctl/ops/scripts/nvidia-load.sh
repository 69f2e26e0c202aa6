# nvidia-load.sh NOTES FILE REASON: load the driver's module; what stands in the way is said as it is to be mended.
# Where the module was made for another kernel that the host can boot, that is a reason for a reboot, not an error.
command -v modprobe >/dev/null || fail "modprobe is not installed; apt install kmod"
if out=$(modprobe nvidia 2>&1); then
  modprobe nvidia-uvm 2>/dev/null || true
  exit 0
fi
case $out in
  *'not found'*)
    running=$(uname -r)
    for boot in /boot/vmlinuz-*; do
      version=${boot##*/vmlinuz-}
      [ -e "$boot" ] && [ "$version" != "$running" ] || continue
      [ -n "$(find "/lib/modules/$version" \( -name 'nvidia.ko*' -o -name 'nvidia-current*.ko*' \) -print -quit 2>/dev/null)" ] || continue
      newest=$(printf '%s\n%s\n' "$version" "$running" | sort -V | tail -n 1)
      [ "$newest" = "$version" ] || continue
      (umask 022 && mkdir -p -- "$1")
      printf '%s\n' "$3" >"$1/.$2"
      mv -f -- "$1/.$2" "$1/$2"
      exit 0
    done
    ;;
esac
printf '%s\n' "$out" >&2
dkms status 2>/dev/null >&2 || true
case $out in
  *'Key was rejected'*) fail "Secure Boot refused the NVIDIA module: its key is not enrolled (mokutil --import, then choose Enroll MOK at the console)" ;;
  *'not found'*) fail "there is no NVIDIA module for the running kernel $running: dkms status and /var/lib/dkms/nvidia*/*/build/make.log say why" ;;
  *) fail "the NVIDIA module could not be loaded; journalctl -k says why" ;;
esac

# machine.sh: what the choice of a GPU driver depends on, one "key value" line each; never fails, changes nothing.
set +e
say() { [ -z "$2" ] || printf '%s %s\n' "$1" "$2"; }
first() { head -n 1 -- "$1" 2>/dev/null; }
say kernel "$(uname -r)"
say arch "$(dpkg --print-architecture 2>/dev/null || uname -m)"
for release in /etc/os-release /usr/lib/os-release; do
  [ -r "$release" ] || continue
  # shellcheck disable=SC1090
  (. "$release" && say os_id "${ID-}" && say os_version "${VERSION_ID-}" && say codename "${VERSION_CODENAME-}")
  break
done
# A container that has the running kernel's modules manages them; else they are the machine's outside.
[ -e /run/systemd/container ] && [ ! -d "/lib/modules/$(uname -r)" ] && say container yes
if [ -d /sys/firmware/efi ]; then
  say uefi yes
  for variable in /sys/firmware/efi/efivars/SecureBoot-*; do
    # Four bytes of attributes come before the value.
    [ -r "$variable" ] && say secure_boot "$(od -An -t u1 -j 4 -N 1 "$variable" 2>/dev/null | tr -d ' ')"
  done
fi
for device in /sys/bus/pci/devices/*; do
  case $(first "$device/class") in
    0x03* | 0x1200*) printf 'pci %s %s %s\n' "${device##*/}" "$(first "$device/vendor")" "$(first "$device/device")" ;;
  esac
done
# Debian calls the module nvidia-current where alternatives choose between versions.
for module in nvidia nvidia_current; do
  [ -d "/sys/module/$module" ] || continue
  say nvidia_loaded "$(first "/sys/module/$module/version")"
  break
done
for module in nouveau nova_core; do
  [ -d "/sys/module/$module" ] && say nouveau "$module"
done
if [ -r /proc/driver/nvidia/version ]; then
  say nvidia_running "$(sed -n '1s/.*[[:space:]]\([0-9][0-9]*\.[0-9.]*\)[[:space:]].*/\1/p' /proc/driver/nvidia/version)"
  if grep -q 'Open Kernel Module' /proc/driver/nvidia/version; then say nvidia_flavour open; else say nvidia_flavour proprietary; fi
fi
for module in nvidia nvidia-current nvidia-current-open; do
  version=$(modinfo -F version "$module" 2>/dev/null | head -n 1)
  [ -n "$version" ] && say nvidia_on_disk "$version" && break
done
library=$(ldconfig -p 2>/dev/null | sed -n 's/^[[:space:]]*libnvidia-ml\.so\.1 .*=> //p' | head -n 1)
if [ -n "$library" ]; then
  library=$(readlink -f -- "$library")
  case $library in *.so.*.*) say nvidia_library "${library##*.so.}" ;; esac
fi
# Where the kernel does not tell, the driver does; a card that hangs must not hang this.
if command -v nvidia-smi >/dev/null && [ ! -d /sys/module/nvidia ] && [ ! -d /sys/module/nvidia_current ]; then
  case $(timeout -k 2 10 nvidia-smi -L 2>&1) in *'version mismatch'*) say nvidia_mismatch yes ;; GPU*) say nvidia_answers yes ;; esac
fi
[ -e /dev/kfd ] && say kfd yes
for properties in /sys/class/kfd/kfd/topology/nodes/*/properties; do
  [ -r "$properties" ] && say gfx "$(sed -n 's/^gfx_target_version \([1-9][0-9]*\)$/\1/p' "$properties")"
done
dkms status 2>/dev/null | while read -r line; do say dkms "$line"; done
# Whether the firmware knows the key by which modules built here are signed.
for key in /var/lib/shim-signed/mok/MOK.der /var/lib/dkms/mok.pub; do
  [ -e "$key" ] && mokutil --test-key "$key" 2>/dev/null | grep -q 'already enrolled' && say key_enrolled yes
done
say headers "$([ -e "/lib/modules/$(uname -r)/build" ] && echo yes)"
[ -e /run/reboot-required ] && say reboot_required yes
[ -r /run/reboot-required.pkgs ] && sort -u /run/reboot-required.pkgs | while read -r name; do say reboot_for "$name"; done
exit 0

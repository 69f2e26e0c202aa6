# nvidia-load.sh: load the driver's module; what stands in the way is said as it is to be mended.
command -v modprobe >/dev/null || fail "modprobe is not installed; apt install kmod"
if out=$(modprobe nvidia 2>&1); then
  modprobe nvidia-uvm 2>/dev/null || true
  exit 0
fi
printf '%s\n' "$out" >&2
dkms status 2>/dev/null >&2 || true
case $out in
  *'Key was rejected'*) fail "Secure Boot refused the NVIDIA module: its key is not enrolled (mokutil --import, then choose Enroll MOK at the console)" ;;
  *'not found'*) fail "there is no NVIDIA module for the running kernel $(uname -r): dkms status and /var/lib/dkms/nvidia*/*/build/make.log say why" ;;
  *) fail "the NVIDIA module could not be loaded; journalctl -k says why" ;;
esac

# amd-facts.sh SOURCE: packages and memory that AMD's deploys ask about, one "key value" line each; never fails.
set +e
installed() { dpkg-query -W -f="\${db:Status-Abbrev} $1\n" -- "$2" 2>/dev/null | sed -n 's/^.i. //p'; }
dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' rocm rocm-core rocm-dev rocm-libs rocm-hip-runtime \
  rocm-hip-libraries rocm-hip-sdk rocm-language-runtime rocm-opencl-runtime rocm-llvm hip-runtime-amd 2>/dev/null |
  sed -n 's/^.i. //p' | while read -r name; do
  # Debian's and Ubuntu's own packages of these names stay beside AMD's new ones: theirs lie in /usr.
  dpkg-query -L -- "$name" 2>/dev/null | grep -q '^/opt/rocm' && echo "old $name"
done
installed dkms amdgpu-dkms
for name in firmware-amd-graphics linux-firmware; do installed "firmware \${Version}" "$name"; done | head -n 1
installed "mesa \${Version}" "mesa-vulkan-drivers" | head -n 1
grep -rhsE '^[^#]*-backports' /etc/apt/sources.list /etc/apt/sources.list.d/ >/dev/null && echo backports
apt-cache pkgnames amdrocm 2>/dev/null | sed 's/^/offered /'
[ -e "$1" ] && echo own_source
sed -n 's/^MemTotal: *\([0-9]*\) kB$/memory_kib \1/p' /proc/meminfo 2>/dev/null
for module in ttm amdttm; do
  [ -r "/sys/module/$module/parameters/pages_limit" ] || continue
  printf 'ttm_pages %s\n' "$(cat "/sys/module/$module/parameters/pages_limit" 2>/dev/null)"
  break
done
exit 0

# wol-secureon.sh INTERFACE: the password comes on stdin, because ethtool would take it on a command line
# which every user of the host can read.
python3 -c '
import ctypes, fcntl, socket, struct, sys

password = bytes.fromhex(sys.stdin.read().strip().replace(":", ""))
SIOCETHTOOL, GET, SET, SECURE = 0x8946, 5, 6, 1 << 6

def ask(command, options, secret):
    data = ctypes.create_string_buffer(struct.pack("III6s2x", command, 0, options, secret), 20)
    request = struct.pack("16sP16x", sys.argv[1].encode(), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        fcntl.ioctl(link, SIOCETHTOOL, request)
    return struct.unpack("III6s2x", data.raw)

ask(SET, SECURE, password)
sys.exit(0 if ask(GET, 0, bytes(6))[2] & SECURE else 1)
' "$1" || fail "$1 was told to listen for SecureOn packets but does not report that it does"

# llamaswap.sh look UNIT NOTE URL KEYFILE: which models it lists and which are loaded; never fails.
# llamaswap.sh serve UNIT NOTE URL KEYFILE ACT SECONDS, expectations as JSON on stdin: ACT is reload,
# restart or ""; then what it serves is read back and compared. The key is read from KEYFILE here, so it is on no
# command line.
verb=$1 unit=$2 note=$3
program='
import json, subprocess, sys, time, urllib.request
verb, unit, url, keyfile = sys.argv[1:5]
key = ""
if keyfile:
    try:
        with open(keyfile) as file:
            key = file.readline().partition("=")[2].strip()
    except OSError:
        pass
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def get(path):
    header = {"Authorization": "Bearer " + key} if key else {}
    with opener.open(urllib.request.Request(url + path, headers=header), timeout=5) as answer:
        return json.load(answer)
def live():
    models, running = get("/v1/models")["data"], get("/running")["running"]
    marks = {one["id"]: one.get("meta", {}).get("llamaswap", {}).get("labctl", "") for one in models}
    return {"models": marks, "running": {one["model"]: [one["state"], one["cmd"]] for one in running}}
def differs(seen, want):
    shown = sorted(seen["models"])
    if shown != want["listed"]:
        more = [name for name in shown if name not in want["listed"]]
        less = [name for name in want["listed"] if name not in shown]
        return "it lists" + (f" {more} too many" if more else "") + (f" {less} too few" if less else "")
    if odd := sorted(name for name, mark in seen["models"].items() if mark and mark != want["digest"]):
        return f"{odd} are served by another configuration than the rendered one"
    for name, (state, cmd) in sorted(seen["running"].items()):
        rendered = want["commands"].get(name)
        parts = rendered.split("${PORT}") if rendered is not None else []
        rest = cmd
        for place, part in enumerate(parts):
            found = rest.find(part)
            if found < 0 or (found and not (place and rest[:found].isdigit())):
                return f"{name} was started by another command than the rendered one"
            rest = rest[found + len(part):]
        if rendered is None:
            return f"{name} is loaded, which is not in the rendered configuration"
    return ""
def journal(cursor):
    argv = ["journalctl", "-q", "-o", "cat", "-u", unit, *(["--after-cursor=" + cursor] if cursor else ["-n", "0"])]
    return subprocess.run([*argv, "--show-cursor"], capture_output=True, text=True, errors="replace").stdout
if verb == "look":
    try:
        print("live " + json.dumps(live()))
    except Exception as error:
        print("silent " + " ".join(f"{type(error).__name__}: {error}".split()))
    sys.exit(0)
act, limit, want = sys.argv[5], float(sys.argv[6]), json.load(sys.stdin)
cursor = journal("").rpartition("-- cursor: ")[2].strip()
if act:
    done = subprocess.run(["systemctl", act, "--", unit], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"labctl: {unit} failed to {act}: {done.stderr.strip()}")
marked = any(name in want["commands"] for name in want["listed"])
end, why = time.monotonic() + limit, ""
while True:
    said = journal(cursor) if act == "reload" and cursor else ""
    for line in said.splitlines():
        if "failed to reload config" in line or "during reload:" in line:
            sys.exit(f"labctl: {unit} kept its old configuration: {line.strip()}")
    try:
        why = differs(live(), want)
    except Exception as error:
        why = f"it does not answer: {type(error).__name__}: {error}"
    # Without a mark in the list only its own word tells an old configuration of the same names from the new one.
    if not why and (act != "reload" or marked or not cursor or "configuration reloaded" in said):
        sys.exit(0)
    if time.monotonic() > end:
        sys.exit(f"labctl: {unit} does not serve what was rendered: " + (why or "it never said that it has reloaded"))
    time.sleep(0.1)
'
case $verb in
  look)
    printf 'active %s\n' "$(systemctl show -p ActiveState --value -- "$unit" 2>/dev/null)"
    [ ! -s "$note" ] || [ "$(cat -- "$note")" != "$(systemctl show -p InvocationID --value -- "$unit")" ] || printf 'owed reload\n'
    /usr/bin/python3 -IS -c "$program" look "$unit" "$4" "$5" 2>/dev/null || true
    ;;
  serve)
    /usr/bin/python3 -IS -c "$program" serve "$unit" "$4" "$5" "$6" "$7"
    rm -f -- "$note"
    ;;
esac

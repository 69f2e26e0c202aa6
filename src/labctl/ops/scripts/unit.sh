# unit.sh UNIT RELOAD ENABLE ACT WATCH NOTE DEST [MODE OWNER]; each may be "". DEST's content comes on stdin.
# RELOAD is "reload", or "if-needed" to leave that to systemd; ENABLE is a verb of systemctl; ACT is start,
# stop, restart or reload-or-restart; WATCH is for how many seconds a service is looked after then.
unit=$1 reload=$2 enable=$3 act=$4 watch=$5 note=$6 dest=$7

# What a person would type next, in the output already.
tell() {
  systemctl status --no-pager --full --lines=0 -- "$unit" >&2 || true
  journalctl --no-pager --quiet --output=cat --lines=20 --unit="$unit" >&2 || true
  fail "$unit $1"
}

if [ -n "$dest" ]; then
  if [ -L "$dest" ]; then
    fail "$dest is a symbolic link to $(readlink -- "$dest"): somebody masked or linked this unit; nothing was changed (systemctl unmask $unit)"
  fi
  (umask 022 && mkdir -p -- "${dest%/*}/")
  stage "$dest" "$8" "$9"
  note_stale "$note"
  commit "$dest"
fi
# Reading all units again is the dearest thing here (0.1 s), so it happens once: after the links have changed.
if [ -n "$enable" ]; then
  systemctl -q --no-reload "$enable" -- "$unit"
  reload=reload
elif [ "$reload" = if-needed ] && [ "$(systemctl show -p NeedDaemonReload --value -- "$unit")" != yes ]; then
  reload=
fi
[ -z "$reload" ] || systemctl daemon-reload
case $act in
  '') ;;
  stop) systemctl stop -- "$unit" ;;
  *)
    systemctl reset-failed -- "$unit" 2>/dev/null || true
    systemctl "$act" -- "$unit" || tell "failed to $act"
    # A simple service counts as started before it has run a single instruction.
    [ -z "$watch" ] || sleep "$watch"
    case $(systemctl show -p ActiveState,SubState --value -- "$unit" | tr '\n' ' ') in
      failed* | *auto-restart*) tell "failed right after its $act" ;;
    esac
    ;;
esac
[ -z "$note" ] || rm -f -- "$note"

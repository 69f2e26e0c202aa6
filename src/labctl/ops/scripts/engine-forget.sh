# engine-forget.sh FILE...: archives that are unpacked and no longer needed.
rm -f -- "$@"

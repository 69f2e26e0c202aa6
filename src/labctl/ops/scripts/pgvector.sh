# pgvector.sh SOCKET PORT USER PROGRAMS SECONDS: run the SQL of stdin as the superuser of a server that starts.
socket=$1 port=$2 user=$3 programs=$4 left=$(($5 * 5))
until runuser -u "$user" -- "$programs/pg_isready" -q -h "$socket" -p "$port" </dev/null; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || fail "PostgreSQL on port $port does not get ready; its journal says why"
  sleep 0.2
done
# A statement that fails is shown without its text, in which a verifier could be.
said=$({
  echo 'SET log_min_error_statement = panic;'
  cat
} | runuser -u "$user" -- "$programs/psql" -XqAtw -v ON_ERROR_STOP=1 -v VERBOSITY=terse \
  -h "$socket" -p "$port" -U "$user" -d postgres -f - 2>&1 >/dev/null) ||
  fail "the database could not be made: $(printf '%s\n' "$said" | grep -v '^LINE ' | tail -n 3)"

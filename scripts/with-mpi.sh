#!/bin/sh
# with-mpi.sh COMMAND...: runs it with the settings of mpi-env.sh, for those who cannot source a script.
# shellcheck source=scripts/mpi-env.sh
. "$(dirname "$0")/mpi-env.sh"
exec "$@"

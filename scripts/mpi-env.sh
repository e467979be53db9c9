# Sourced by scripts that run several ranks on this one machine, so that a plain `mpirun -n N` works
# there: also with more ranks than cores, as root in a container, and without a network. Covers Open
# MPI 4.1 (OMPI_MCA_*) and 5.0 (PRTE_MCA_*). Not for a cluster: the ranks may use the loopback only.
# shellcheck shell=sh

# More ranks than cores.
export OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

# By default two ranks are bound to one core each, and all threads of a rank share that core.
export OMPI_MCA_hwloc_base_binding_policy=none
export PRTE_MCA_hwloc_default_binding_policy=none

# The ranks' TCP goes over the loopback: Open MPI 5.0 finds no way from some machines to themselves
# over their outer interface, and a laptop may have none.
export OMPI_MCA_btl_tcp_if_include=lo

# Containers forbid process_vm_readv, and 4.1 complains instead of falling back quietly.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# Both versions refuse root unless told twice.
if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

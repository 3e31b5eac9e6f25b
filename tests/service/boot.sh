#!/bin/sh
# boot.sh CGROUP MACHINE TREE: boots a tree with systemd as its first process. When standard input ends, because the
# test closed it or ended in any way, it terminates the guest with all of its processes.
#
# The guest has its own control group, mounts and network; its files are written to memory. NOTIFY_SOCKET receives a
# notification when the guest has booted. TREE `/` is the tree of the machine itself.
set -eu
cgroup=$1 machine=$2 tree=$3
trap '' HUP INT TERM
mkdir "$cgroup"

boot() {
    # shellcheck disable=SC2016  # The inner shell expands these.
    exec unshare --mount --propagation private sh -euc '
        machine=$1 tree=$2
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mkdir -p /run/systemd/nspawn
        mount -t tmpfs tmpfs /run/systemd/nspawn
        if [ "$tree" = / ]; then
            # nspawn does not accept an overlay of the root itself. Services that the machine starts are excluded.
            mount -t tmpfs tmpfs /mnt
            mkdir /mnt/upper /mnt/work /mnt/tree
            mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/tree
            : >/mnt/tree/etc/machine-id
            set -- --resolv-conf=off --timezone=off -D /mnt/tree systemd.unit=basic.target
        else
            set -- --volatile=overlay -D "$tree"
        fi
        # A service manager on a real machine has Landlock and BPF.
        exec systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe \
            --notify-ready=yes --machine="$machine" --capability=CAP_BPF,CAP_PERFMON \
            --system-call-filter="bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self" \
            --boot "$@" systemd.show_status=no' sh "$machine" "$tree"
}

# The group first: no process of the guest is ever outside of it.
(echo 0 >"$cgroup/cgroup.procs"; boot) </dev/null &
# Nothing is ever written here.
read -r _ || :
echo 1 >"$cgroup/cgroup.kill"
wait || :
while grep -q 'populated 1' "$cgroup/cgroup.events"; do sleep 0.01; done
find "$cgroup" -depth -type d -exec rmdir {} +

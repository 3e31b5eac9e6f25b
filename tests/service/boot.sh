#!/bin/sh
# boot.sh CGROUP MACHINE TREE: boots a tree with systemd as its first process, and ends it with all that runs
# in it as soon as standard input ends: when the test lets go of it, or has ended, however that was.
#
# Everything is the guest's own: its control group, its mounts, its network, and what it writes, which is
# in memory. NOTIFY_SOCKET is told when it has come up. TREE `/` is the machine's own.
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
            # nspawn takes no overlay of the root itself. Services that the machine starts stay out.
            mount -t tmpfs tmpfs /mnt
            mkdir /mnt/upper /mnt/work /mnt/tree
            mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/tree
            : >/mnt/tree/etc/machine-id
            set -- --resolv-conf=off --timezone=off -D /mnt/tree systemd.unit=basic.target
        else
            set -- --volatile=overlay -D "$tree"
        fi
        # Landlock and BPF are what a service manager has on a machine of its own.
        exec systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe \
            --notify-ready=yes --machine="$machine" --capability=CAP_BPF,CAP_PERFMON \
            --system-call-filter="bpf landlock_create_ruleset landlock_add_rule landlock_restrict_self" \
            --boot "$@" systemd.show_status=no' sh "$machine" "$tree"
}

# The group first: nothing of the guest is ever outside of it.
(echo 0 >"$cgroup/cgroup.procs"; boot) </dev/null &
# Nothing is ever written here.
read -r _ || :
echo 1 >"$cgroup/cgroup.kill"
wait || :
while grep -q 'populated 1' "$cgroup/cgroup.events"; do sleep 0.01; done
find "$cgroup" -depth -type d -exec rmdir {} +

#!/bin/busybox sh
# The first process of a kernel under test: what a host has, the tests, and off.
/bin/busybox --install -s /bin
export PATH=/bin NETDP_BIN=/bin/netdp
# Kinds of uplinks that this kernel has and the machine's own may lack.
export NETDP_LINKS="vlan bond"
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
# Nobody asks for it by name: its device file comes with it.
modprobe tun
# What the kernel prints last may have no end.
echo
/tests/run 2>&1
echo "# end"
poweroff -f

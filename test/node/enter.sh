#!/bin/sh
# Turns the namespaces that main.ts created into a node's machine, and runs a command in it. Everything that the node
# changes ends with the namespaces: network, mounts, processes, and each file below /etc, /var, /run and /usr.
#   enter.sh PACKAGES ADDRESS SERVICES COMMAND…
set -eu
packages=$1 address=$2 services=$3
shift 3

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/node/tmp
for folder in usr etc var; do
  mkdir -p "/run/node/$folder" "/run/node/$folder.work"
  # The Debian packages take precedence over what the machine has.
  lower=/$folder
  [ ! -d "$packages/$folder" ] || lower=$packages/$folder:/$folder
  mount -t overlay -o "lowerdir=$lower,upperdir=/run/node/$folder,workdir=/run/node/$folder.work" overlay "/$folder"
done

# The kubelet sets these for the whole machine if they differ. It reads files with the values that it wants instead.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  path=${setting%=*}
  file=/run/node/$(echo "$path" | tr / .)
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/$path"
done

ip link set lo up
# Pods cannot reach loopback. The address of the API server, of DNS and of the local AWS is this one.
ip link add node0 type bridge
ip address add "$address/32" dev node0
ip link set node0 up
# Without a route the kernel refuses a Service's address before kube-proxy's rules see it.
ip route add "$services" dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward

# Not exec: this shell is process 1 of the node, and waits for the processes that lose their parents.
TMPDIR=/run/node/tmp "$@"

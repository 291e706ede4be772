#!/bin/sh
# Waits until the process that holds the other end of standard input ends, however it ends. Then it ends the node, and
# removes its control groups: the only part of a node that the namespaces do not contain.
#   caretaker.sh CGROUP, then the node's process id on standard input
trap '' INT TERM HUP
cgroup=$1
node=
while read -r line; do node=$line; done
[ -z "$node" ] || kill -KILL "$node" 2>/dev/null

attempts=100
while [ "$attempts" -gt 0 ]; do
  left=$(find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d '(' -name "$cgroup" -o -name "$cgroup.*" ')')
  [ -n "$left" ] || exit 0
  # The kernel refuses to remove a group until its last process is gone.
  echo "$left" | while read -r folder; do find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null; done
  attempts=$((attempts - 1))
  sleep 0.1
done
echo "The control groups $cgroup could not be removed from /sys/fs/cgroup." >&2
exit 1

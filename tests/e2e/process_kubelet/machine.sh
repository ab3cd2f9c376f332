#!/usr/bin/env bash
# The first process of a node: makes it a root of its own, says so, and holds it until standard input ends.
# Its root is a small file system in memory that holds this machine's folders. So a pod's volume can be mounted at a path that
# this machine does not have, and nothing is written to this machine.
#
#   $1 an empty folder for that root; then folders of this machine that have to be seen
set -euo pipefail
root=$1
shift

bind() {
  mkdir -p "$root$1"
  mount --rbind "$1" "$root$1"
}

mount -t tmpfs -o mode=755 root "$root"
for entry in /*; do
  if [[ -L $entry ]]; then
    cp -a "$entry" "$root/"
  elif [[ -d $entry ]]; then
    case $entry in
      /home | /mnt | /opt | /run | /srv | /var)
        # Pods have volumes in these, and beside what is there.
        mkdir "$root$entry"
        for inner in "$entry"/*; do
          # Pods have volumes below this one, and what is there on this machine is no part of a node.
          [[ $inner != /run/kitepool ]] || continue
          if [[ -L $inner ]]; then
            cp -a "$inner" "$root$inner"
          elif [[ -d $inner ]]; then
            bind "$inner"
          fi
        done
        ;;
      /etc) cp -a /etc "$root/" ;;
      /tmp) mkdir -m 1777 "$root/tmp" ;;
      *) bind "$entry" ;;
    esac
  fi
done
for folder in "$@"; do
  [[ -e $root$folder || ! -d $folder ]] || bind "$folder"
done

mkdir "$root/.before"
cd "$root"
pivot_root . .before
cd /
umount -l /.before
rmdir /.before
echo ready
read -r _ || true

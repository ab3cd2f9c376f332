#!/usr/bin/env bash
# The first process of a container, before it becomes the container's program: mounts the volumes, takes the pod's name and the
# user's rights. Whatever goes wrong here ends with code 125 and a sentence.
#
#   $1 host name   $2 user, or -   $3 group   $4 more groups, or -   $5 "none" for no new privileges   $6 working directory
#   $7 the container's PATH   $8 number of volumes, each of them three more: source, target, rw or ro
#   then NAME=VALUE for each variable, "--", and the program with its arguments
set -euo pipefail

refuse() {
  echo "kubelet: $*" >&2
  exit 125
}
trap 'refuse "line $LINENO failed"' ERR

hostname=$1 user=$2 group=$3 groups=$4 privileges=$5 directory=$6 path=$7 count=$8
shift 8

mount -t proc proc /proc
echo "$hostname" >/proc/sys/kernel/hostname

own=$(stat -c %d /)
targets=()
is_ours() { # whether a mount point may be made there: in the node's own root or in a volume of this container
  local target
  for target in "${targets[@]}"; do
    [[ $1 != "$target" && $1 != "$target"/* ]] || return 0
  done
  [[ $(stat -c %d "$1") == "$own" ]]
}
# All sources are held before the first mount, since a mount may hide the path of another's source.
held=() places=() modes=()
for (( ; count > 0; count--)); do
  [[ -e $1 ]] || refuse "$1: no such file or directory"
  exec {source}<"$1"
  held+=("$source") places+=("$2") modes+=("$3")
  shift 3
done
for index in "${!held[@]}"; do
  source=/proc/self/fd/${held[index]} target=${places[index]}
  if [[ ! -e $target ]]; then
    ancestor=${target%/*}
    while [[ -n $ancestor && ! -e $ancestor ]]; do ancestor=${ancestor%/*}; done
    is_ours "${ancestor:-/}" || refuse "this machine has no $target, and its ${ancestor:-/} is not to be written to"
    if [[ -d $source ]]; then
      mkdir -p "$target"
    else
      mkdir -p "${target%/*}/"
      : >"$target"
    fi
  fi
  mount --no-canonicalize --bind "$source" "$target"
  [[ ${modes[index]} == rw ]] || mount -o remount,bind,ro "$target"
  targets+=("$target")
done
for source in "${held[@]}"; do exec {source}<&-; done

[[ -d $directory ]] || mkdir -p "$directory" || refuse "there is no working directory $directory"
cd "$directory"
variables=()
while [[ $1 != -- ]]; do
  variables+=("$1")
  shift
done
shift
PATH=$path type -P -- "$1" >/dev/null || refuse "exec: \"$1\": executable file not found"

identity=()
[[ $user == - ]] || identity+=(--reuid "$user" --regid "$group")
if [[ $groups != - ]]; then identity+=(--groups "$groups"); elif [[ $user != - ]]; then identity+=(--clear-groups); fi
[[ $privileges != none ]] || identity+=(--no-new-privs)
# Whatever signals this program's own parents had ignored: a container begins with the defaults.
exec setsid setpriv "${identity[@]}" env -i --default-signal "${variables[@]}" "$@"

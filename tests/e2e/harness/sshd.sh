#!/usr/bin/env bash
# A git server over SSH, by the distribution's sshd: sshd.sh FOLDER PORT. It ends when standard input does.
# FOLDER has host_key, authorized_keys and private.git. To be run as the first process of namespaces of mounts and processes of its
# own, so that this machine gets neither the user `git` nor sshd's folders.
set -euo pipefail
folder=$1 port=$2 sshd=$(command -v sshd)

# sshd reads the keys as that user, who need not be let into the folder.
home=/run/git
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
mkdir /run/sshd "$home"
cp -r "$folder/private.git" "$folder/authorized_keys" "$home/"

# A star is no password, and no lock either.
users=/run/users
mkdir -m 700 "$users"
for file in passwd shadow; do sed '/^\(git\|sshd\):/d' "/etc/$file" >"$users/$file"; done
printf '%s\n' "sshd:x:64001:65534::/run/sshd:/usr/sbin/nologin" "git:x:64002:65534::$home:$(command -v git-shell)" >>"$users/passwd"
printf '%s:*:20000:0:99999:7:::\n' sshd git >>"$users/shadow"
chmod 644 "$users/passwd"
chmod 600 "$users/shadow"
for file in passwd shadow; do mount --bind "$users/$file" "/etc/$file"; done
chown -R git "$home/private.git"

# Passwords are asked for, as by many a server: whoever has none must not wait there.
cat >/run/sshd_config <<CONFIG
ListenAddress 127.0.0.1:$port
HostKey $folder/host_key
AuthorizedKeysFile $home/authorized_keys
PasswordAuthentication yes
AllowUsers git
PidFile none
LogLevel VERBOSE
CONFIG
# From OpenSSH 9.8 on, who fails some times is not let in for a while; earlier ones do not know the word.
if "$sshd" -t -f /run/sshd_config -o PerSourcePenalties=no 2>/dev/null; then
  echo "PerSourcePenalties no" >>/run/sshd_config
fi
"$sshd" -D -e -f /run/sshd_config </dev/null &
read -r _ || true

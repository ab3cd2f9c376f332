# Nothing of a job is left to the next one: processes, files, credentials. To be sourced after agent-environment.bash.
#
# A job runs as the agent's own user, so it can write wherever the agent can. That is why places are cleared whole and not searched
# for credentials: what stays is named here. Where several agents share the pod nothing is cleared, since it may be a neighbour's.

# Told to go; after so many tenths of a second they have to.
readonly PATIENCE=20

# Stay in the agent's home: mirrors hold what anybody may clone who may run a job here, the program is mounted read-only.
readonly KEPT=" bin git-mirrors .buildkite-agent "

agent_home() {
  local home
  home=$(agent_value HOME)
  echo "${home:-/var/lib/buildkite-agent}"
}

is_alone() {
  local spawn
  spawn=$(agent_value BUILDKITE_AGENT_SPAWN)
  ((${spawn:-1} <= 1))
}

# processes_of NAME=VALUE [BUT]: numbers of this user's processes that have the first and not the second in their environment, but
# for those that this one comes from.
processes_of() {
  local wanted=$1 but=${2:-} folder pid
  local -A own=()
  pid=$BASHPID
  while ((pid > 1)); do
    own[$pid]=1
    pid=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || break
    pid=${pid:-0}
  done
  for folder in /proc/[0-9]*; do
    pid=${folder#/proc/}
    [[ -z ${own[$pid]:-} && -O $folder ]] || continue
    grep --null-data --quiet --line-regexp --fixed-strings -- "$wanted" "$folder/environ" 2>/dev/null || continue
    [[ -z $but ]] || ! grep --null-data --quiet --line-regexp --fixed-strings -- "$but" "$folder/environ" 2>/dev/null || continue
    # Not what this function itself started a moment ago.
    [[ $(awk '/^PPid:/ { print $2 }' "$folder/status" 2>/dev/null) != "$BASHPID" ]] || continue
    echo "$pid"
  done
}

# end_processes NAME=VALUE [BUT]
end_processes() {
  local pids=() left=() pid tenth
  mapfile -t pids < <(processes_of "$@")
  ((${#pids[@]} > 0)) || return 0
  echo "ending ${#pids[@]} processes that a job left behind"
  kill -TERM "${pids[@]}" 2>/dev/null || true
  for ((tenth = 0; tenth < PATIENCE; tenth++)); do
    left=()
    for pid in "${pids[@]}"; do
      [[ ! -d /proc/$pid ]] || left+=("$pid")
    done
    ((${#left[@]} > 0)) || return 0
    sleep 0.1
  done
  kill -KILL "${left[@]}" 2>/dev/null || true
}

# Everything that is older than this job, wherever a job can write. By the time at which an entry was last changed, which nobody can
# set; the file of this job's environment was made by the agent as the job began.
clear_before_job() {
  is_alone || return 0
  [[ -n ${BUILDKITE_AGENT_ID:-} ]] && end_processes "BUILDKITE_AGENT_ID=$BUILDKITE_AGENT_ID" "BUILDKITE_JOB_ID=$BUILDKITE_JOB_ID"
  local home folders=() folder entry builds plugins kept=$KEPT
  home=$(agent_home)
  builds=$(agent_value BUILDKITE_BUILD_PATH)
  plugins=$(agent_value BUILDKITE_PLUGINS_PATH)
  IFS=: read -r -a folders <<<"$(agent_value KITEPOOL_CLEARED_FOLDERS)"
  ((${#folders[@]} > 0)) || return 0
  # The folders themselves stay, since every job begins in one of them.
  kept+="${builds##*/} ${plugins##*/} "
  # Where checkouts are to stay warm, jobs trust each other.
  [[ $(agent_value KITEPOOL_KEEP_CHECKOUTS) == true ]] || folders+=("$builds" "$plugins")
  for folder in "${folders[@]}"; do
    [[ -d $folder ]] || continue
    while IFS= read -r -d '' entry; do
      [[ $folder != "$home" || $kept != *" ${entry##*/} "* ]] || continue
      # The agent's files of this very job.
      [[ $BUILDKITE_ENV_FILE != "$entry"* && ${BUILDKITE_JOB_CONTEXT_DIR:-/} != "$entry"* ]] || continue
      rm -rf -- "$entry"
    done < <(find "$folder" -mindepth 1 -maxdepth 1 -user "$(id -u)" ! -cnewer "$BUILDKITE_ENV_FILE" -print0)
  done
  # The agent's sockets are in there, and nothing else has to be.
  [[ ! -d $home/.buildkite-agent ]] || find "$home/.buildkite-agent" ! -type s ! -type d -delete
}

# What the job was given goes at once.
clear_after_job() {
  if [[ -n ${SSH_AGENT_PID:-} && -n ${KITEPOOL_SSH_AGENT_PID:-} && $SSH_AGENT_PID == "$KITEPOOL_SSH_AGENT_PID" ]]; then
    ssh-agent -k >/dev/null 2>&1 || true
  fi
  end_processes "BUILDKITE_JOB_ID=$BUILDKITE_JOB_ID"
  # Only the folder that the environment hook made, whatever the job made of the variable.
  case ${KITEPOOL_JOB_FOLDER:-} in
  "$(agent_home)"/jobs/????????) rm -rf -- "$KITEPOOL_JOB_FOLDER" ;;
  esac
}

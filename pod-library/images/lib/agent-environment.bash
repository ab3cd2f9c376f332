# What the pod's definition set, as against what a step says. To be sourced.

# agent_value NAME: as the agent's process was given it. The job's own environment is a step's to write; the number of the agent's
# process is one of the variables that the agent lets nobody change.
agent_value() {
  local entry
  while IFS= read -r -d '' entry; do
    if [[ $entry == "$1="* ]]; then
      printf '%s' "${entry#*=}"
      return 0
    fi
  done <"/proc/${BUILDKITE_AGENT_PID:?}/environ"
}

# retried ATTEMPTS COMMAND...: again after 1, 2, 3, … seconds. Ends as the last attempt did.
retried() {
  local attempts=$1 attempt code=0
  shift
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    code=0
    "$@" || code=$?
    ((code != 0)) || return 0
    ((attempt == attempts)) || sleep "$attempt"
  done
  return "$code"
}

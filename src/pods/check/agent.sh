#!/bin/sh
# Does for one job what `buildkite-agent start` does around each: runs it by the agent's own bootstrap, with the definition's hooks.
# The process that this is started by stands for the agent: hooks find in its environment what the definition set.
set -eu

agent=$(readlink "/proc/$PPID/exe")

# defined NAME: what the definition, or the image, says. Not what this shell has: the process that stands for the agent was itself
# told of other folders.
defined() {
  # One variable on each line, also one of many lines.
  tr '\n\0' ' \n' <"/proc/$PPID/environ" | sed -n "s/^$1=//p" | tail -n 1
}

# from_file NAME: what `start` would read from its configuration file and hand on.
from_file() {
  for file in "$(defined BUILDKITE_AGENT_CONFIG)" "${HOME:-}/.buildkite-agent/buildkite-agent.cfg" /etc/buildkite-agent/buildkite-agent.cfg; do
    [ -r "$file" ] || continue
    sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*\"\{0,1\}\([^\"]*\)\"\{0,1\}[[:space:]]*\$/\1/p" "$file" | tail -n 1
    return 0
  done
}

# setting VARIABLE NAME
setting() {
  value=$(defined "$1")
  [ -n "$value" ] || value=$(from_file "$2")
  echo "$value"
}
BUILDKITE_BUILD_PATH=$(setting BUILDKITE_BUILD_PATH build-path)
BUILDKITE_HOOKS_PATH=$(setting BUILDKITE_HOOKS_PATH hooks-path)
BUILDKITE_PLUGINS_PATH=$(setting BUILDKITE_PLUGINS_PATH plugins-path)
if [ -z "$BUILDKITE_BUILD_PATH" ]; then
  echo "the definition says nowhere where builds are; set BUILDKITE_BUILD_PATH of container agent" >&2
  exit 1
fi

# No settings of the job: what `start` takes from its environment for itself.
unset BUILDKITE_AGENT_TOKEN BUILDKITE_AGENT_TAGS BUILDKITE_AGENT_META_DATA BUILDKITE_AGENT_QUEUE BUILDKITE_AGENT_SPAWN \
  BUILDKITE_AGENT_HEALTH_CHECK_ADDR BUILDKITE_AGENT_CONFIG BUILDKITE_AGENT_JOB_API_SOCKET BUILDKITE_AGENT_JOB_API_TOKEN \
  BUILDKITE_BUILD_CHECKOUT_PATH

# Hooks tell by its age what is older than the job.
BUILDKITE_ENV_FILE=$(mktemp)
export BUILDKITE_BUILD_PATH BUILDKITE_HOOKS_PATH BUILDKITE_PLUGINS_PATH BUILDKITE_ENV_FILE
export BUILDKITE_AGENT_PID="$PPID" BUILDKITE_BIN_PATH="${agent%/*}"
export BUILDKITE_AGENT_NAME="$KITEPOOL_CHECK_NAME-1" BUILDKITE_AGENT_META_DATA_QUEUE="$KITEPOOL_CHECK_QUEUE"
export CI=true BUILDKITE=true BUILDKITE_LABEL="kitepool check" BUILDKITE_BUILD_NUMBER=1
export BUILDKITE_JOB_ID="$KITEPOOL_CHECK_NAME" BUILDKITE_BUILD_ID="$KITEPOOL_CHECK_NAME"
export BUILDKITE_ORGANIZATION_SLUG=kitepool BUILDKITE_PIPELINE_SLUG=kitepool-check BUILDKITE_PIPELINE_PROVIDER=none
export BUILDKITE_REPO=none BUILDKITE_COMMIT=HEAD BUILDKITE_BRANCH=main BUILDKITE_SKIP_CHECKOUT=true
export BUILDKITE_COMMAND="$KITEPOOL_CHECK_COMMAND"

unset KITEPOOL_CHECK_AGENT
# The folder that this began in may be one that hooks clear.
cd /
exec "$agent" bootstrap

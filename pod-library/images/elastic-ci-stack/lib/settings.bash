# The stack's settings: what the pod definition says wins over what a step says. To be sourced after agent-environment.bash.

# As the original sets them always; none of them is a secret.
readonly SETTINGS_ALWAYS=(
  BUILDKITE_ECR_POLICY BUILDKITE_SECRETS_BUCKET BUILDKITE_SECRETS_BUCKET_REGION BUILDKITE_STACK_NAME BUILDKITE_STACK_VERSION
  BUILDKITE_DOCKER_EXPERIMENTAL DOCKER_PRUNE_UNTIL DOCKER_BUILDER_PRUNE_ENABLED BUILDKITE_ARTIFACTS_BUCKET
  BUILDKITE_S3_DEFAULT_REGION BUILDKITE_S3_ACL BUILDKITE_AGENTS_PER_INSTANCE
)

# Where an upload goes is the artifact bucket's name, which the agent takes for its own where it is set.
readonly SETTINGS_IF_SAID=" BUILDKITE_ARTIFACTS_BUCKET BUILDKITE_S3_DEFAULT_REGION BUILDKITE_S3_ACL "

# A step may deploy to another region than the one its agent is in.
readonly SETTINGS_UNLESS_PRESENT=(AWS_REGION AWS_DEFAULT_REGION)

set_settings() {
  local name value
  for name in "${SETTINGS_ALWAYS[@]}"; do
    value=$(agent_value "$name")
    [[ -n $value || $SETTINGS_IF_SAID != *" $name "* ]] || continue
    export "$name=$value"
    echo "$name=$value"
  done
  for name in "${SETTINGS_UNLESS_PRESENT[@]}"; do
    [[ -z ${!name:-} ]] || continue
    value=$(agent_value "$name")
    [[ -z $value ]] || export "$name=$value"
  done
  set_plugins
}

# Which of the three built-in plugins are on. The definition may turn one off for good, a step for itself.
set_plugins() {
  local plugin name enabled=()
  for plugin in secrets ecr docker-login; do
    name=${plugin^^}
    name=${name//-/_}_PLUGIN_ENABLED
    if is_on "$(agent_value "$name")" && is_on "${!name:-}"; then
      export "$name=1"
      enabled+=("$plugin")
    else
      export "$name=0"
    fi
  done
  export PLUGINS_ENABLED="${enabled[*]}"
  echo "PLUGINS_ENABLED=$PLUGINS_ENABLED"
}

# is_on VALUE: what is not said is on.
is_on() {
  [[ -z $1 || $1 =~ ^(on|1|true)$ ]]
}

# A folder of the job's own, seen by dockerd at the same path.
make_job_folder() {
  mkdir -p "$(agent_home)/jobs"
  KITEPOOL_JOB_FOLDER=$(mktemp -d "$(agent_home)/jobs/XXXXXXXX")
  export KITEPOOL_JOB_FOLDER
  export TMPDIR=$KITEPOOL_JOB_FOLDER/tmp
  # The original's own name for it as well, since pipelines look there.
  export DOCKER_CONFIG=$KITEPOOL_JOB_FOLDER/docker
  export BUILDKITE_DOCKER_CONFIG_TEMP_DIRECTORY=$DOCKER_CONFIG
  mkdir -p "$TMPDIR" "$DOCKER_CONFIG"
  echo '{}' >"$DOCKER_CONFIG/config.json"
}

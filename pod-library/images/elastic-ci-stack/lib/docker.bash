# Docker's client: daemon, registries, builder. To be sourced after agent-environment.bash.

# Each waits a second longer than the one before.
readonly DOCKER_ATTEMPTS=5
# As the original's docker-login plugin does it.
readonly LOGIN_ATTEMPTS=3
# A daemon that hangs must not hang the agent.
readonly DOCKER_SECONDS=60

has_daemon() {
  [[ $(agent_value KITEPOOL_DOCKER) != off ]]
}

check_docker() {
  has_daemon || return 0
  retried "$DOCKER_ATTEMPTS" timeout "$DOCKER_SECONDS" docker ps >/dev/null || {
    echo "+++ Docker does not answer: look at the log of the pod's container dockerd" >&2
    return 1
  }
  if [[ $(agent_value DOCKER_PRUNE_ON) == pre-job ]]; then prune_docker; fi
}

# change_config FILTER [ARGUMENT...]: of the job's own config.json, by jq.
change_config() {
  local file=$DOCKER_CONFIG/config.json
  jq "$@" "$file" >"$file.new"
  mv "$file.new" "$file"
}

# The credential helper gets a password whenever docker wants one, so none is kept and none runs out.
configure_registries() {
  [[ $BUILDKITE_DOCKER_EXPERIMENTAL != true ]] || change_config '.experimental = "enabled"'
  [[ ${BUILDKITE_ECR_POLICY:-none} != none && $ECR_PLUGIN_ENABLED == 1 ]] || return 0
  # A pipeline may do without.
  [[ ${AWS_ECR_LOGIN:-true} =~ ^(on|1|true)$ ]] || return 0
  local accounts=() regions=() account region names
  names=${AWS_ECR_LOGIN_REGISTRY_IDS:-$(agent_value AWS_ECR_LOGIN_REGISTRY_IDS)}
  IFS=', ' read -r -a accounts <<<"$names"
  if ((${#accounts[@]} == 0)); then
    account=$(retried "$DOCKER_ATTEMPTS" aws sts get-caller-identity --query Account --output text)
    accounts=("$account")
  fi
  names=$(agent_value KITEPOOL_ECR_REGIONS)
  IFS=', ' read -r -a regions <<<"${names:-${AWS_REGION:-us-east-1}}"
  for account in "${accounts[@]}"; do
    [[ $account =~ ^[0-9]{12}$ ]] || {
      echo "AWS_ECR_LOGIN_REGISTRY_IDS has '$account', expected numbers of accounts of twelve digits" >&2
      return 1
    }
    for region in "${regions[@]}"; do
      # shellcheck disable=SC2016  # It is jq that expands it.
      change_config --arg registry "$account.dkr.ecr.$region.$(domain "$region")" '.credHelpers[$registry] = "ecr-login"'
    done
  done
  # Its cache would outlive the job, and so would what a job writes to it.
  export AWS_ECR_CACHE_DIR=$KITEPOOL_JOB_FOLDER/ecr
  # A `docker login` that a pipeline still does would have nowhere to put the password.
  export AWS_ECR_IGNORE_CREDS_STORAGE=true
  echo "ECR: accounts ${accounts[*]} in ${regions[*]}"
}

# domain REGION: of the partition that it is in.
domain() {
  case $1 in
  cn-*) echo amazonaws.com.cn ;;
  *) echo amazonaws.com ;;
  esac
}

# The shared BuildKit, where there is one, as the builder of the job.
configure_builder() {
  local endpoint certificates
  endpoint=$(agent_value KITEPOOL_BUILDKIT)
  [[ -n $endpoint ]] || return 0
  certificates=$(agent_value KITEPOOL_BUILDKIT_CERTIFICATES)
  docker buildx create --name kitepool --driver remote --use \
    --driver-opt "cacert=$certificates/ca.pem,cert=$certificates/cert.pem,key=$certificates/key.pem" "$endpoint" >/dev/null
  export BUILDX_BUILDER=kitepool BUILDKIT_HOST=$endpoint
}

login_to_registry() {
  [[ -n ${DOCKER_LOGIN_PASSWORD:-} ]] || {
    echo "+++ DOCKER_LOGIN_USER is set and DOCKER_LOGIN_PASSWORD is not" >&2
    return 1
  }
  echo "~~~ docker login ${DOCKER_LOGIN_SERVER:-(Docker Hub)}"
  retried "$LOGIN_ATTEMPTS" login_once || {
    echo "+++ docker login failed" >&2
    return 1
  }
}

login_once() {
  # Not as an argument: the process list is everybody's.
  timeout "$DOCKER_SECONDS" docker login --username "$DOCKER_LOGIN_USER" --password-stdin ${DOCKER_LOGIN_SERVER:+"$DOCKER_LOGIN_SERVER"} \
    <<<"$DOCKER_LOGIN_PASSWORD"
}

prune_docker() {
  local until=${DOCKER_PRUNE_UNTIL:-4h}
  timeout "$DOCKER_SECONDS" docker image prune --all --force --filter "until=$until" || true
  [[ ${DOCKER_BUILDER_PRUNE_ENABLED:-false} != true ]] ||
    timeout "$DOCKER_SECONDS" docker builder prune --all --force --filter "until=$until" || true
}

# A container that stands holds its environment, and one that runs holds the machine.
clear_docker() {
  has_daemon && is_alone || return 0
  local containers=() when
  mapfile -t containers < <(timeout "$DOCKER_SECONDS" docker ps --all --quiet)
  ((${#containers[@]} == 0)) || timeout "$DOCKER_SECONDS" docker rm --force --volumes "${containers[@]}" >/dev/null ||
    echo "containers of this job could not be removed"
  when=$(agent_value DOCKER_PRUNE_ON)
  [[ $when != pre-exit && $when != both ]] || prune_docker
}

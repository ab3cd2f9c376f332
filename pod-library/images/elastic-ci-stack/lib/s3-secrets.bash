# Secrets from S3, in every place where the Elastic CI Stack's s3-secrets hooks look. To be sourced after settings.bash.
#
# The original's helper is a program of its own that no package registry has; this is the same by Amazon's library, ssh-agent, git's
# own store and the agent's own redactor. Two of its mistakes are left out: the secrets of pipeline `web-admin` are not those of
# `web`, and a quote in a secret is a quote.

readonly SECRET_KEYS=(private_ssh_key id_rsa_github)
readonly SECRET_ENVIRONMENTS=(env environment)

load_s3_secrets() {
  local prefix folder name
  prefix=${BUILDKITE_PLUGIN_S3_SECRETS_BUCKET_PREFIX:-$BUILDKITE_PIPELINE_SLUG}
  folder=$KITEPOOL_JOB_FOLDER/secrets
  mkdir -m 700 "$folder"
  echo "~~~ Downloading secrets from S3: $BUILDKITE_SECRETS_BUCKET"
  local places=()
  for name in "${SECRET_KEYS[@]}" "${SECRET_ENVIRONMENTS[@]}" git-credentials; do places+=("$name" "$prefix/$name"); done
  "${BASH_SOURCE[0]%/*}/fetch-s3-secrets" "$BUILDKITE_SECRETS_BUCKET" "$BUILDKITE_SECRETS_BUCKET_REGION" "$prefix" "$folder" "${places[@]}" \
    >"$KITEPOOL_JOB_FOLDER/found"
  load_keys "$folder" "${SECRET_KEYS[@]/#/$prefix/}" "${SECRET_KEYS[@]}"
  # The pipeline's own come after everybody's, so they win.
  load_environments "$folder" "${SECRET_ENVIRONMENTS[@]}" "${SECRET_ENVIRONMENTS[@]/#/$prefix/}"
  load_git_credentials "$folder" git-credentials "$prefix/git-credentials"
  load_secret_files "$folder" "${places[@]}"
}

# load_keys FOLDER KEY...
load_keys() {
  local folder=$1 key
  shift
  for key in "$@"; do
    [[ -f $folder/$key ]] || continue
    if [[ -z ${KITEPOOL_SSH_AGENT_PID:-} ]]; then start_ssh_agent; fi
    echo "Loading $key into ssh-agent"
    # Some editors leave out the last line's end, which ssh wants.
    { cat "$folder/$key" && echo; } | ssh-add -q -
    rm -f "$folder/$key"
  done
  [[ -n ${KITEPOOL_SSH_AGENT_PID:-} || ${BUILDKITE_REPO:-} != git@* ]] ||
    [[ ${BUILDKITE_SECRETS_PLUGIN_SKIP_SSH_KEY_NOT_FOUND_WARNING:-false} == true ]] ||
    echo "+++ :warning: $BUILDKITE_REPO wants an SSH key, and the bucket has none for this pipeline" >&2
}

# In the job's folder, where plugins can mount its socket into containers.
start_ssh_agent() {
  eval "$(ssh-agent -s -a "$KITEPOOL_JOB_FOLDER/ssh-agent.sock")" >/dev/null
  export SSH_AGENT_PID SSH_AUTH_SOCK KITEPOOL_SSH_AGENT_PID=$SSH_AGENT_PID
}

# load_environments FOLDER KEY...
load_environments() {
  local folder=$1 key
  shift
  for key in "$@"; do
    [[ -f $folder/$key ]] || continue
    echo "Loading $key"
    set -o allexport
    # shellcheck source=/dev/null
    source "$folder/$key"
    set +o allexport
    rm -f "$folder/$key"
  done
}

# load_git_credentials FOLDER KEY...: git's own store reads them. They stay for as long as the job does. Git only gets from them: told
# to forget what a server refused, or to keep what it took in every store, it would change what the next attempt finds.
load_git_credentials() {
  local folder=$1 key line count value
  shift
  for key in "$@"; do
    [[ -f $folder/$key ]] || continue
    echo "Adding $key as a credential helper of git"
    count=${GIT_CONFIG_COUNT:-0}
    # shellcheck disable=SC2016 # Git's shell expands it.
    printf -v value '!f() { test "$1" != get || git credential-store --file=%q get; }; f' "$folder/$key"
    export "GIT_CONFIG_KEY_$count=credential.helper" "GIT_CONFIG_VALUE_$count=$value" GIT_CONFIG_COUNT=$((count + 1))
    while IFS= read -r line; do
      [[ ! $line =~ ^[a-z]+://[^:/@]*:([^@]+)@ ]] || redact "${BASH_REMATCH[1]}"
    done <"$folder/$key"
  done
}

# load_secret_files FOLDER PLACE...: what was found that is none of the places.
load_secret_files() {
  local folder=$1 key name value
  shift
  while IFS= read -r key; do
    [[ -n $key && " $* " != *" $key "* ]] || continue
    name=${key##*/}
    [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || {
      echo "+++ :warning: $key is no name of a variable, and was left out" >&2
      continue
    }
    value=$(<"$folder/$key")
    rm -f "$folder/$key"
    echo "Adding $key to the environment"
    redact "$value"
    export "$name=$value"
  done <"$KITEPOOL_JOB_FOLDER/found"
}

# redact VALUE: keeps it out of the log from here on.
redact() {
  [[ -n $1 ]] || return 0
  buildkite-agent redactor add <<<"$1" >/dev/null || {
    echo "+++ The agent would not keep a secret out of the log" >&2
    return 1
  }
}

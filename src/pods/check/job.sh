#!/bin/sh
# The job of `kitepool check --live` where it is given no command: who it is, whether it can write where builds are, and what there
# is of Docker.
set -eu

echo "user: $(id)"
echo "builds: $PWD"
echo "written by kitepool check" >kitepool-check
rm kitepool-check

# With an image: a container of it, and an image made of it that is not kept.
image=${KITEPOOL_CHECK_IMAGE:-}
dockerfile=$(printf 'FROM %s\nRUN true\n' "$image")
found=

if [ -n "${DOCKER_HOST:-}" ] || [ -S /var/run/docker.sock ]; then
  found=daemon
  docker version
  docker compose version || echo "there is no compose here"
  docker buildx version || echo "there is no buildx here"
  if [ -n "$image" ]; then
    docker run --rm "$image"
    # Where there is another builder, an image would be nothing to this daemon.
    if [ -z "${BUILDX_BUILDER:-}" ]; then
      echo "$dockerfile" | docker build --tag "$BUILDKITE_JOB_ID" -
      docker image rm "$BUILDKITE_JOB_ID"
    fi
  fi
fi

if [ -n "${BUILDX_BUILDER:-}" ]; then
  found=builder
  docker buildx inspect --bootstrap
  [ -z "$image" ] || echo "$dockerfile" | docker buildx build -
fi

if [ -n "$image" ] && [ -z "$found" ]; then
  echo "nothing here runs or builds $image: there is no DOCKER_HOST, no /var/run/docker.sock and no BUILDX_BUILDER" >&2
  exit 1
fi

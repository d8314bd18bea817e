#!/usr/bin/env bash
# Runs the builder's image on a directory of the runner and tells later steps what came out.
set -euo pipefail
# shellcheck source=.github/actions/common.sh
. "$GITHUB_ACTION_PATH/../common.sh"

VARIABLES=(
    GIT_REPOSITORY_URL GIT_SHA PLP_CONTEXT PLP_DOCKERFILE PLP_TARGET PLP_PLATFORMS
    PLP_BUILD_ARGS PLP_LABELS PLP_ANNOTATIONS PLP_SECRETS PLP_SSH PLP_BUILD_CONTEXTS
    PLP_NO_CACHE PLP_PULL PLP_OFFLINE PLP_NETWORK PLP_ADD_HOSTS PLP_SHM_SIZE PLP_ULIMITS
    PLP_FRONTEND PLP_OUTPUTS PLP_ARCHIVE_NAME PLP_ARCHIVE_FORMAT PLP_IMAGE PLP_COMPRESSION
    PLP_COMPRESSION_LEVEL SOURCE_DATE_EPOCH PLP_CACHE_STRATEGY PLP_CACHE_MODE PLP_CACHE_MAX_SIZE
    PLP_CACHE_LOCK_TIMEOUT PLP_CACHE_MOUNTS PLP_VERIFY
    PLP_BUILDKITD_FLAGS PLP_BUILDKITD_CONFIG PLP_REGISTRY_MIRRORS PLP_INSECURE_REGISTRIES
    PLP_TIMEOUT PLP_START_TIMEOUT PLP_PROGRESS PLP_LOG_FORMAT PLP_LOG_LEVEL PLP_DEBUG
)
PROXIES=({HTTP,HTTPS,NO,ALL}_PROXY {http,https,no,all}_proxy)
# What index.json says of the archive: one image, however many names it has.
READ_DIGEST='
import json, sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    index = json.load(archive.extractfile("index.json"))
(digest,) = {manifest["digest"] for manifest in index["manifests"]}
print(digest)
'

image=${ACTION_BUILDER_IMAGE:-$(default_image plp-container-image-builder)}
source=$(absolute "${ACTION_SOURCE_PATH:-.}")
build=$(absolute "${ACTION_BUILD_PATH:-$RUNNER_TEMP/plp-build}")
cache=$(absolute "${ACTION_CACHE_PATH:-$RUNNER_TEMP/plp-cache}")
[[ -d $source ]] || fail "source-path: there is no directory $source"
mkdir -p -- "$build" "$cache"

options=(
    --mount "$(bind "$source" /source readonly)"
    --mount "$(bind "$build" /build)"
    --mount "$(bind "$cache" /tmp/cache)"
)
case ${ACTION_PRIVILEGES:-privileged} in
privileged) options+=(--privileged) ;;
unprivileged) options+=(--security-opt=seccomp=unconfined --security-opt=apparmor=unconfined) ;;
*) fail "privileges: $ACTION_PRIVILEGES is neither privileged nor unprivileged" ;;
esac
for name in "${VARIABLES[@]}" "${PROXIES[@]}"; do
    [[ -z ${!name:-} ]] || options+=(--env "$name")
done
lines "${ACTION_ENVIRONMENT:-}"
for name in "${LINES[@]}"; do
    [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || fail "environment: $name is no name of a variable"
    options+=(--env "$name")
done
if [[ -n ${ACTION_DOCKER_CONFIG:-} ]]; then
    config=$(absolute "$ACTION_DOCKER_CONFIG")
    [[ -d $config ]] || fail "docker-config: there is no directory $config"
    options+=(--mount "$(bind "$config" /run/plp/docker readonly)")
    options+=(--env DOCKER_CONFIG=/run/plp/docker)
fi
if [[ -n ${PLP_SSH:-} && -S ${SSH_AUTH_SOCK:-} ]]; then
    options+=(--mount "$(bind "$SSH_AUTH_SOCK" /run/plp/agent.sock)")
    options+=(--env SSH_AUTH_SOCK=/run/plp/agent.sock)
fi
lines "${ACTION_DOCKER_OPTIONS:-}"
options+=("${LINES[@]}")

run_container "${options[@]}" "$image"

[[ ${PLP_OUTPUTS:-archive} == *archive* ]] || exit 0
name=${PLP_ARCHIVE_NAME:-container-image.tar}
digest=$(docker run --rm --network=none --read-only --cap-drop=ALL \
    --security-opt=no-new-privileges --user="$(id -u):$(id -g)" \
    --mount "$(bind "$build" /build readonly)" --entrypoint=python \
    "$image" -I -c "$READ_DIGEST" "/build/$name")
[[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || fail 'the archive does not tell its digest'
printf 'archive=%s\ndigest=%s\n' "$build/$name" "$digest" >>"$GITHUB_OUTPUT"
# shellcheck disable=SC2016 # Markdown
printf '### Built\n\n`%s`\n\nArchive of %s bytes\n' \
    "$digest" "$(stat --dereference --format=%s -- "$build/$name")" >>"$GITHUB_STEP_SUMMARY"

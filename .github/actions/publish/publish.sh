#!/usr/bin/env bash
# Runs the publisher's image on an archive of the runner. The publisher itself writes the outputs
# digest, image and tags, and the summary.
set -euo pipefail
# shellcheck source=.github/actions/common.sh
. "$GITHUB_ACTION_PATH/../common.sh"

VARIABLES=(
    PLP_IMAGE_REPOSITORY PLP_COMMIT_SHA PLP_BRANCH PLP_TAG PLP_PULL_REQUEST_NUMBER
    PLP_IS_DEFAULT_BRANCH PLP_EXTRA_TAGS PLP_REGISTRY_USERNAME PLP_REGISTRY_PASSWORD
    PLP_REGISTRY_TOKEN PLP_REGISTRY_INSECURE PLP_PUSH_RETRIES PLP_TIMEOUT PLP_STALL_TIMEOUT
    PLP_DRY_RUN PLP_LOG_FORMAT PLP_LOG_LEVEL PLP_DEBUG
)
PROXIES=({HTTP,HTTPS,NO,ALL}_PROXY {http,https,no,all}_proxy)

image=${ACTION_PUBLISHER_IMAGE:-$(default_image plp-container-image-publisher)}
artifact=$(absolute "${ACTION_ARTIFACT_PATH:-$RUNNER_TEMP/plp-build/container-image.tar}")
[[ -e $artifact ]] || fail "artifact-path: there is no file or directory $artifact"

# Nothing is given to the publisher that it does not need. As the runner's own user it reads what
# the runner reads and writes the two files that GitHub hands to this step.
options=(
    --read-only --tmpfs=/tmp --cap-drop=ALL --security-opt=no-new-privileges
    --user="$(id -u):$(id -g)"
    --mount "$(bind "$GITHUB_OUTPUT" /run/plp/output)"
    --env GITHUB_OUTPUT=/run/plp/output
    --mount "$(bind "$GITHUB_STEP_SUMMARY" /run/plp/summary)"
    --env GITHUB_STEP_SUMMARY=/run/plp/summary
)
give() { # give VARIABLE PATH NAME: mount a path of the runner and let the variable name its place
    options+=(--mount "$(bind "$2" "$3" readonly)" --env "$1=$3")
}
if [[ -d $artifact ]]; then
    give PLP_ARTIFACT_PATH "$artifact" /artifacts
else
    give PLP_ARTIFACT_PATH "$artifact" "/artifacts/container-image.tar"
fi
[[ -z ${ACTION_DOCKER_CONFIG:-} ]] ||
    give DOCKER_CONFIG "$(absolute "$ACTION_DOCKER_CONFIG")" /run/plp/docker
[[ -z ${ACTION_REGISTRY_AUTH_FILE:-} ]] ||
    give REGISTRY_AUTH_FILE "$(absolute "$ACTION_REGISTRY_AUTH_FILE")" /run/plp/auth.json
[[ -z ${ACTION_REGISTRY_CA_PATH:-} ]] ||
    give PLP_REGISTRY_CA_PATH "$(absolute "$ACTION_REGISTRY_CA_PATH")" /run/plp/ca
for name in "${VARIABLES[@]}" "${PROXIES[@]}"; do
    [[ -z ${!name:-} ]] || options+=(--env "$name")
done
lines "${ACTION_DOCKER_OPTIONS:-}"
options+=("${LINES[@]}")

run_container "${options[@]}" "$image"

#!/bin/sh
# docker.sh PROJECT REPOSITORY: build a git clone, load the image, publish it.
# ENGINE=podman does it with Podman.
set -eu
engine=${ENGINE:-docker}
project=$(realpath "$1")
repository=$2
out=$(mktemp -d)

"$engine" run --rm --privileged \
    -v "$project:/source:ro" \
    -v "$out:/build" \
    -v plp-cache:/tmp/cache \
    -e PLP_IMAGE="$repository:local" \
    -e GIT_REPOSITORY_URL="$(git -C "$project" remote get-url origin 2>/dev/null)" \
    -e GIT_SHA="$(git -C "$project" rev-parse HEAD)" \
    plp-container-image-builder

"$engine" load --input "$out/container-image.tar"

"$engine" run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
    --user "$(id -u):$(id -g)" \
    -v "$out:/artifacts:ro" \
    -e PLP_IMAGE_REPOSITORY="$repository" \
    -e PLP_COMMIT_SHA="$(git -C "$project" rev-parse HEAD)" \
    -e PLP_BRANCH="$(git -C "$project" branch --show-current)" \
    -e PLP_REGISTRY_USERNAME -e PLP_REGISTRY_PASSWORD -e PLP_REGISTRY_INSECURE \
    plp-container-image-publisher

# shellcheck shell=bash
# What both actions do alike. Values of a workflow arrive as environment variables and stay values:
# none ever becomes part of a script.

fail() { # fail TEXT…: an error on the run's page; no character can end its line
    printf '::error::%s\n' "$(printf '%s ' "$@" | tr -d '\000-\037' | sed 's/%/%25/g')" >&2
    exit 1
}

default_image() { # default_image NAME: the image released with this very version of the action
    local owner=${ACTION_REPOSITORY%%/*} tree=$GITHUB_ACTION_PATH/../../.. version
    version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$tree/plp_builder/__init__.py")
    printf 'ghcr.io/%s/%s:%s' "${owner,,}" "$1" "$version"
}

absolute() { # absolute PATH: as the runner sees it; a relative one starts at the workspace
    [[ $1 != *$'\n'* ]] || fail 'a path must be a single line'
    (cd -- "$GITHUB_WORKSPACE" && realpath --canonicalize-missing -- "${1/#\~\//$HOME/}")
}

bind() { # bind SOURCE TARGET [readonly]: the value of --mount, also for paths with commas
    printf 'type=bind,"src=%s",dst=%s%s' "${1//\"/\"\"}" "$2" "${3:+,$3}"
}

lines() { # lines TEXT: the lines of TEXT that are not empty, into the array LINES
    LINES=()
    local line
    while IFS= read -r line; do
        line=${line%$'\r'}
        [[ -z $line ]] || LINES+=("$line")
    done <<<"$1"
}

run_container() { # run_container ARGUMENT…: docker run to its end, also when the job is cancelled
    local pid code=0
    docker run --rm "$@" &
    pid=$!
    trap 'kill -TERM "$pid" 2>/dev/null || true' INT TERM
    wait "$pid" || code=$?
    while kill -0 "$pid" 2>/dev/null; do # a signal ended wait, not the container
        code=0
        wait "$pid" || code=$?
    done
    trap - INT TERM
    return "$code"
}

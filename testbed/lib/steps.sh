# Runs a recipe step by step: a line for each with the time it took, progress while it works, its output in a log, and on
# failure which step it was and where its log is. Needs settings.sh, common.sh.
# shellcheck shell=bash

PROGRESS_SECONDS=30 # between two signs of life, where no terminal shows them all the time

LOCK_SECONDS=3600 # the longest that a recipe takes

# One recipe at a time: a second would take the cluster away from the first.
begin_steps() { # NAME of the recipe
    mkdir -p "$PEERNET_CACHE"
    exec 8>"$PEERNET_CACHE/recipe.lock"
    if ! flock --nonblock 8; then
        say "waiting for another make demo, test, check or e2e to end"
        flock --timeout "$LOCK_SECONDS" 8 || die "another recipe has been at work for $LOCK_SECONDS s (lock $PEERNET_CACHE/recipe.lock)"
    fi
    STEP_LOGS=$LOGS/$1
    STEP_COUNT=0
    STEP_TIMES=()
    RECIPE_BEGUN=$SECONDS
    rm -rf "$STEP_LOGS"
    mkdir -p "$STEP_LOGS"
}

# step TITLE COMMAND...: COMMAND may be a function; it runs in a subshell. Lines of its output that begin with "note: " are
# shown when it has succeeded.
step() {
    local title=$1 begun=$SECONDS log pid status=0
    shift
    STEP_COUNT=$((STEP_COUNT + 1))
    log=$STEP_LOGS/$(printf '%02d' "$STEP_COUNT")-$(tr -cs 'a-zA-Z0-9' - <<<"$title" | sed 's/-*$//').log
    [[ -t 2 ]] || say "$title"
    : >"$log"
    # A process group of its own, so that an interruption ends the whole step.
    set -m
    "$@" >"$log" 2>&1 </dev/null 8>&- & # without the lock, which a daemon would keep
    pid=$!
    set +m
    trap 'kill -TERM -- -"'"$pid"'"; say "interrupted"; exit 130' INT TERM
    show_progress "$title" "$begun" "$log" "$pid"
    wait "$pid" || status=$?
    trap - INT TERM
    local seconds=$((SECONDS - begun))
    if ((status != 0)); then
        say "FAILED: $title, after $seconds s, with status $status. The end of its log $log:"
        tail -n 40 "$log" | sed 's/^/    /' >&2
        return "$status"
    fi
    STEP_TIMES+=("$(printf '%5d s  %s' "$seconds" "$title")")
    say "$(printf '%5d s  ok: %s' "$seconds" "$title")"
    sed -n 's/^note: /         note: /p' "$log" >&2
}

show_progress() { # TITLE BEGUN LOG PID: until the process ends
    local shown=$2 line
    while kill -0 "$4" 2>/dev/null; do
        if [[ -t 2 ]]; then
            line=$(tail -n 1 "$3" | tr -d '\r' | tr -c '[:print:]\n' ' ')
            line=$(printf '%5d s  %s ... %s' "$((SECONDS - $2))" "$1" "$line")
            printf '\r\033[K%s' "${line:0:$(($(tput cols 2>/dev/null || echo 80) - 1))}" >&2
        elif ((SECONDS - shown >= PROGRESS_SECONDS)); then
            shown=$SECONDS
            say "$(printf '%5d s  ... %s' "$((SECONDS - $2))" "$(tail -n 1 "$3" | cut -c1-100)")"
        fi
        sleep 0.3
    done
    if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# Where the time went.
show_times() {
    say
    say "time:"
    printf '%s\n' "${STEP_TIMES[@]}" >&2
    say "$(printf '%5d s  in all' "$((SECONDS - RECIPE_BEGUN))")"
}

# Messages, waiting, and processes by id. Sourced by every script of the testbed.
# shellcheck shell=bash

say() { echo "$*" >&2; }

die() {
    echo "error: $*" >&2
    exit 1
}

# wait_until SECONDS WHAT LOG COMMAND...: polls COMMAND until it succeeds. Past the deadline it says what did not happen,
# shows the end of LOG (a file, or - for none), and fails.
wait_until() {
    local seconds=$1 what=$2 log=$3
    shift 3
    local deadline=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then
            say "error: $what: not within $seconds s"
            if [[ $log != - ]]; then
                say "the end of $log:"
                tail -n 20 "$log" >&2 || true
            fi
            return 1
        fi
        sleep 0.2
    done
}

# A process is recorded as "ID STARTED": an id alone may since belong to somebody else's process.
process_started() {
    local stat
    local -a fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The second field, the name, may hold spaces; what follows its closing parenthesis does not. Started is field 22.
    read -ra fields <<<"${stat##*) }"
    # A killed process whose parent has not collected it yet is dead.
    [[ ${fields[0]} != Z ]] || return 1
    echo "${fields[19]}"
}

record_process() { # FILE ID
    echo "$2 $(process_started "$2" || echo gone)" >"$1"
}

# recorded_process FILE: prints the id if that very process still runs.
recorded_process() {
    local id started
    [[ -f $1 ]] || return 1
    read -r id started <"$1"
    [[ $(process_started "$id") == "$started" ]] || return 1
    echo "$id"
}

recorded_process_gone() { ! recorded_process "$1"; }

kill_recorded() { # FILE: at once, as a crash would
    local id
    if id=$(recorded_process "$1"); then
        kill -KILL "$id" 2>/dev/null || true
        wait_until 10 "process $id ($1) to end" - recorded_process_gone "$1"
    fi
    rm -f "$1"
}

ROOT_IS_MISSING="root is missing: the test cluster makes network namespaces and cgroups (or set KUBECONFIG to use an existing cluster)"

require_root() { ((EUID == 0)) || die "$ROOT_IS_MISSING"; }

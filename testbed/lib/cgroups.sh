# A node's part of the control groups, on hosts with cgroup v1, v2 or both. Needs settings.sh, common.sh.
# shellcheck shell=bash

# The folders of every hierarchy that is mounted, v1 or v2, where the distributions mount them.
cgroup_hierarchies() {
    awk '($3 == "cgroup" || $3 == "cgroup2") && $2 ~ "^/sys/fs/cgroup" { print $2 }' /proc/mounts
}

make_node_cgroups() { # NODE
    local hierarchy group parameter
    for hierarchy in $(cgroup_hierarchies); do
        group=$hierarchy/$PREFIX$1
        mkdir -p "$group"
        # A v1 cpuset starts empty, and no process can join it until it is filled.
        if [[ -e $group/cpuset.cpus && ! -e $group/cgroup.controllers ]]; then
            for parameter in cpuset.cpus cpuset.mems; do
                cat "$hierarchy/$parameter" >"$group/$parameter"
            done
        fi
    done
    # On a pure v2 host the node's controllers are those that the root hands down.
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        local controller
        for controller in cpu cpuset memory pids io; do
            echo "+$controller" 2>/dev/null >/sys/fs/cgroup/cgroup.subtree_control ||
                say "warning: cgroup controller $controller cannot be handed to the nodes"
        done
    fi
}

join_node_cgroups() { # NODE: moves the calling shell
    local hierarchy
    for hierarchy in $(cgroup_hierarchies); do
        echo "$BASHPID" >"$hierarchy/$PREFIX$1/cgroup.procs"
    done
}

# The groups of a node, or of all nodes, in every hierarchy.
node_groups() { # [NODE]
    local hierarchy
    for hierarchy in $(cgroup_hierarchies); do
        find "$hierarchy" -maxdepth 1 -name "$PREFIX${1:-*}"
    done
}

cgroup_processes() { # [NODE]: the ids of everything in a node's groups, or in all nodes'
    local group
    for group in $(node_groups "$@"); do
        find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -un
}

no_cgroup_processes() { [[ -z $(cgroup_processes "$@") ]]; }

# Fails while a group is left: just after its processes died it is busy for a moment.
remove_cgroups() { # [NODE]
    local group
    for group in $(node_groups "$@"); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    [[ -z $(node_groups "$@") ]]
}

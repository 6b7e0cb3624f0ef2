# Nodes: each is a process tree in namespaces of its own, begun by ../node-init, and a folder for what a disk would hold.
# Needs settings.sh, common.sh, network.sh, cgroups.sh, control-plane.sh, BIN and CNI_BIN.
# shellcheck shell=bash

list_nodes() { find "$NODES" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' 2>/dev/null | sort -V; }
node_pid_file() { echo "$NODES/$1/pid"; }
node_runs() { recorded_process "$(node_pid_file "$1")" >/dev/null; }
node_log() { echo "$NODES/$1/node.log"; }

require_node() {
    [[ -d $NODES/$1 ]] || die "no node $1: one of $(list_nodes | tr '\n' ' ')"
}

# The kubelet and its kin write below these; in a node's mount namespace they are the node's own, but the places to mount
# them on must exist on the host. Those that did not are noted, for `down` to remove.
NODE_PLACES=(/var/lib/kubelet /var/lib/containerd /var/lib/cni /etc/cni /etc/cni/net.d)

make_node_places() {
    local place
    for place in "${NODE_PLACES[@]}"; do
        [[ -d $place ]] && continue
        mkdir -p "$place"
        echo "$place" >>"$STATE/made-places"
    done
}

remove_node_places() {
    local place
    [[ -f $STATE/made-places ]] || return 0
    tac "$STATE/made-places" | while read -r place; do
        rmdir "$place" 2>/dev/null || true
    done
    rm "$STATE/made-places"
}

start_node() { # NODE: returns at once
    local node=$1
    mkdir -p "$NODES/$node"
    netns_exists "$node" || make_netns "$node" "$(node_ip "$node")"
    make_node_cgroups "$node"
    setsid nsenter --net="$NETNS_FOLDER/$PREFIX$node" \
        unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc --propagation private \
        "$TESTBED/node-init" "$node" "$BIN" "$CNI_BIN" >>"$(node_log "$node")" 2>&1 9>&- </dev/null &
    record_process "$(node_pid_file "$node")" $!
    wait_until 10 "node $node's first process" "$(node_log "$node")" node_init_id "$node"
}

# The recorded process is `unshare`, outside of the node; its only child is the node's first process.
node_init_id() {
    local outside
    outside=$(recorded_process "$(node_pid_file "$1")") || return 1
    pgrep --parent "$outside"
}

in_node() { # NODE COMMAND...
    local id
    id=$(node_init_id "$1") || die "node $1 does not run"
    shift
    nsenter --target "$id" --mount --uts --ipc --net --pid "$@"
}

node_containerd_ready() { in_node "$1" ctr version; }

load_images() { # NODE ARCHIVE...
    local node=$1 log=$NODES/$1/images.log archive
    shift
    wait_until 30 "containerd of node $node" "$NODES/$node/containerd.log" node_containerd_ready "$node"
    for archive in "$@"; do
        in_node "$node" ctr --namespace k8s.io images import "$archive" >>"$log" 2>&1 ||
            die "node $node cannot load $archive: see $log"
    done
}

node_condition() { # NODE: True, False or Unknown
    kubectl_admin get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
}

node_is_ready() { [[ $(node_condition "$1") == True ]]; }

wait_node_ready() {
    wait_until 90 "node $1 to be Ready" "$NODES/$1/kubelet.log" node_is_ready "$1"
}

# A power cut: the network goes first, so that nobody is told, then every process at once.
cut_node() { # NODE
    local id
    unplug "$1"
    stop_delays "$1"
    if id=$(recorded_process "$(node_pid_file "$1")"); then
        kill -KILL "$id"
    fi
    wait_until 30 "the processes of node $1 to end" - no_cgroup_processes "$1"
    rm -f "$(node_pid_file "$1")"
    if netns_exists "$1"; then ip netns del "$PREFIX$1"; fi
    wait_until 10 "the cgroups of node $1 to go" - remove_cgroups "$1"
}

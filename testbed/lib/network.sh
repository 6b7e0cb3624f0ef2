# The cluster's network: a switch in a namespace of its own, a namespace for the control plane and for each node, and
# static routes to pods and Services, for this machine too: tests can speak to both. Needs settings.sh, common.sh.
# shellcheck shell=bash

in_netns() { # NAME COMMAND...: runs in the network namespace of the node or control plane (cp) NAME
    local name=$1
    shift
    nsenter --net="$NETNS_FOLDER/$PREFIX$name" "$@"
}

netns_exists() { [[ -e $NETNS_FOLDER/$PREFIX$1 ]]; }

# The hardware address follows from the IP: when a node returns, its neighbours' caches are still right.
hardware_address() { # IP
    local a b c d
    IFS=. read -r a b c d <<<"$1"
    printf '02:50:%02x:%02x:%02x:%02x' "$a" "$b" "$c" "$d"
}

make_switch() {
    ip netns add "$WAN"
    ip -n "$WAN" link set lo up
    ip -n "$WAN" link add br0 type bridge
    ip -n "$WAN" link set br0 up
    ip link add "$HOST_LINK" type veth peer name "$HOST_LINK" netns "$WAN"
    ip -n "$WAN" link set "$HOST_LINK" master br0 up
    ip addr add "$HOST_IP/24" dev "$HOST_LINK"
    ip link set "$HOST_LINK" up
}

make_netns() { # NAME IP: a namespace with one leg, eth0, on the switch
    local namespace=$PREFIX$1
    ip netns add "$namespace"
    ip link add "$namespace" netns "$WAN" type veth peer name eth0 address "$(hardware_address "$2")" netns "$namespace"
    ip -n "$WAN" link set "$namespace" master br0 up
    ip -n "$namespace" link set lo up
    ip -n "$namespace" addr add "$2/24" dev eth0
    ip -n "$namespace" link set eth0 up
    # Agents with hostNetwork find each other across nodes by multicast, which needs a route where there is no default one.
    ip -n "$namespace" route add 224.0.0.0/4 dev eth0
}

# The link goes before the namespace, so that not even the farewell of a dying connection gets out.
unplug() { # NAME
    ip -n "$WAN" link del "$PREFIX$1" 2>/dev/null || true
}

# Every pod network by its node, everywhere; Services by the first node that runs, since kube-proxy there translates them
# (the API server reaches webhooks so, and this machine every Service).
set_routes() {
    local node other gateway=
    for node in $(list_nodes); do
        netns_exists "$node" || continue
        if [[ -z $gateway ]] && node_runs "$node"; then gateway=$node; fi
        for other in cp $(list_nodes); do
            if [[ $other != "$node" ]] && netns_exists "$other"; then
                ip -n "$PREFIX$other" route replace "$(pod_network "$node")" via "$(node_ip "$node")"
            fi
        done
        ip route replace "$(pod_network "$node")" via "$(node_ip "$node")" dev "$HOST_LINK"
    done
    if [[ $gateway ]]; then
        ip -n "${PREFIX}cp" route replace "$SERVICE_CIDR" via "$(node_ip "$gateway")"
        ip route replace "$SERVICE_CIDR" via "$(node_ip "$gateway")" dev "$HOST_LINK"
    fi
}

# Limits of the whole kernel that a cluster on one machine exceeds, with the value each needs. The neighbour table serves
# all namespaces: with the default of 1024 entries some 50 agents in a full mesh overflow it, silently.
HOST_LIMITS=(
    net.ipv4.neigh.default.gc_thresh1=8192
    net.ipv4.neigh.default.gc_thresh2=16384
    net.ipv4.neigh.default.gc_thresh3=32768
    fs.inotify.max_user_instances=1024
)

# Their values before, in a place that a reboot clears, as it does the limits.
HOST_LIMITS_BEFORE=/run/pn-host-limits

raise_host_limits() {
    local setting file old
    for setting in "${HOST_LIMITS[@]}"; do
        file=/proc/sys/$(tr . / <<<"${setting%%=*}")
        old=$(<"$file")
        if ((old < ${setting#*=})); then
            echo "$file $old" >>"$HOST_LIMITS_BEFORE"
            echo "${setting#*=}" >"$file"
        fi
    done
}

restore_host_limits() {
    local file old
    [[ -f $HOST_LIMITS_BEFORE ]] || return 0
    while read -r file old; do
        echo "$old" >"$file"
    done <"$HOST_LIMITS_BEFORE"
    rm "$HOST_LIMITS_BEFORE"
}

remove_network() {
    local name
    ip link del "$HOST_LINK" 2>/dev/null || true # and with it every route through it
    for name in $(netns_names); do
        ip netns del "$name"
    done
}

netns_names() { ip netns list | awk -v prefix="^$PREFIX" '$1 ~ prefix { print $1 }'; }

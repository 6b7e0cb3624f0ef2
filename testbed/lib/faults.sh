# Network faults between nodes and pods. Each fault is a file in FAULTS; after every change the rules that stand for them
# are written anew, so that they are also right after a node's power cut and return. Needs the other libraries.
#
# A cut between two nodes is made in the switch: nothing passes, neither ARP nor multicast. So is the lack of multicast alone.
# Everything else is an iptables
# rule in the namespace of one node that the packets pass, in a chain that kube-proxy does not touch. Rules match packets
# after a Service's address was translated, so a fault between pods also holds for connections by way of a Service.
# shellcheck shell=bash

CHAIN=PN-FAULTS

# The addresses of an end: a pod's own, or a node's and those of all its pods.
end_addresses() { # END
    case $1 in
        cp) echo "$CONTROL_PLANE_IP/32" ;;
        n*) echo "$(node_ip "$1")/32 $(pod_network "$1")" ;;
        *) echo "$1/32" ;;
    esac
}

# Checks an end and prints its canonical form: a node's address is the node.
parse_end() { # END
    local node
    if [[ $1 == cp || $1 == "$CONTROL_PLANE_IP" ]]; then
        echo cp
        return
    fi
    for node in $(list_nodes); do
        if [[ $1 == "$node" || $1 == "$(node_ip "$node")" ]]; then
            echo "$node"
            return
        fi
        if [[ $1 =~ ^10\.244\.${node#n}\.[0-9]+$ ]]; then
            echo "$1"
            return
        fi
    done
    die "$1 is neither a node ($(list_nodes | tr '\n' ' ')or cp) nor the address of a pod here"
}

is_node_end() { [[ $1 == cp || $1 == n* ]]; }

# The node whose namespace all packets between two ends pass.
place_of_rule() { # A B
    local end
    for end in "$1" "$2"; do
        if ! is_node_end "$end"; then
            cut -d. -f3 <<<"$end" | sed 's/^/n/'
            return
        fi
    done
    if [[ $1 == cp ]]; then echo "$2"; else echo "$1"; fi
}

fault_file() { echo "$FAULTS/$1-$2-$3"; } # KIND A B

add_fault() { # KIND A B [VALUES...]
    local a b
    a=$(parse_end "$2")
    b=$(parse_end "$3")
    [[ $a != "$b" ]] || die "$2 and $3 are the same"
    stop_delay "$a" "$b"
    echo "$1 $a $b ${*:4}" >"$(fault_file "$1" "$a" "$b")"
    apply_faults
}

remove_faults() { # KIND[|KIND] [A B]: both directions; without ends, all of them
    local kind a b
    for kind in ${1//|/ }; do
        if (($# == 1)); then
            rm -f "$FAULTS/$kind-"*
        else
            a=$(parse_end "$2")
            b=$(parse_end "$3")
            rm -f "$(fault_file "$kind" "$a" "$b")" "$(fault_file "$kind" "$b" "$a")"
        fi
    done
    apply_faults
}

apply_faults() {
    local node
    apply_switch_faults
    for node in $(list_nodes); do
        netns_exists "$node" && apply_node_faults "$node"
    done
    stop_cleared_delays
}

all_faults() { cat "$FAULTS"/partition-* "$FAULTS"/loss-* "$FAULTS"/delay-* "$FAULTS"/no_* 2>/dev/null || true; }

apply_switch_faults() {
    local kind a b _
    {
        echo "add table bridge pn-faults"
        echo "delete table bridge pn-faults"
        echo "table bridge pn-faults {"
        echo "chain forward {"
        echo "type filter hook forward priority 0"
        all_faults | while read -r kind a b _; do
            is_node_end "$a" && is_node_end "$b" || continue
            case $kind in
                partition)
                    echo "iifname $PREFIX$a oifname $PREFIX$b drop"
                    echo "iifname $PREFIX$b oifname $PREFIX$a drop"
                    ;;
                no_multicast)
                    echo "iifname $PREFIX$a oifname $PREFIX$b ip daddr 224.0.0.0/4 drop"
                    echo "iifname $PREFIX$b oifname $PREFIX$a ip daddr 224.0.0.0/4 drop"
                    ;;
            esac
        done
        echo "}"
        echo "}"
    } | nsenter --net="$NETNS_FOLDER/$WAN" nft -f -
}

apply_node_faults() { # NODE
    local node=$1 kind a b values hook probability protocol
    {
        echo "*mangle"
        echo ":$CHAIN - [0:0]" # an existing chain is emptied, in the same transaction
        all_faults | while read -r kind a b values; do
            [[ $(place_of_rule "$a" "$b") == "$node" ]] || continue
            case $kind in
                partition)
                    is_node_end "$a" && is_node_end "$b" && continue
                    print_rules "$a" "$b" "-j DROP"
                    print_rules "$b" "$a" "-j DROP"
                    ;;
                no_connections)
                    print_rules "$a" "$b" "-m conntrack --ctstate NEW,INVALID -j DROP"
                    ;;
                loss)
                    read -r probability protocol <<<"$values"
                    print_rules "$a" "$b" "${protocol:+-p $protocol} -m statistic --mode random --probability $probability -j DROP"
                    ;;
                delay)
                    print_rules "$a" "$b" "-j NFQUEUE --queue-num $(start_delay "$node" "$a" "$b" "$values") --queue-bypass"
                    ;;
            esac
        done
        echo COMMIT
    } | in_netns "$node" iptables-restore --noflush
    for hook in FORWARD INPUT OUTPUT; do
        in_netns "$node" iptables -w 10 -t mangle -C "$hook" -j "$CHAIN" 2>/dev/null ||
            in_netns "$node" iptables -w 10 -t mangle -I "$hook" -j "$CHAIN"
    done
}

print_rules() { # FROM TO RULE
    local from to
    for from in $(end_addresses "$1"); do
        for to in $(end_addresses "$2"); do
            echo "-A $CHAIN -s $from -d $to $3"
        done
    done
}

# How many packets the loss from A to B has dropped since faults were last changed: the counters of its rules.
print_dropped() { # A B
    local a b addresses
    a=$(parse_end "$1")
    b=$(parse_end "$2")
    [[ -e $(fault_file loss "$a" "$b") ]] || die "nothing is lost from $1 to $2"
    addresses=$(for_each_pair "$a" "$b")
    in_netns "$(place_of_rule "$a" "$b")" iptables -w 10 -t mangle -S "$CHAIN" -v |
        awk -v pairs="$addresses" '
            BEGIN { split(pairs, list, "\n"); for (n in list) wanted[list[n]] }
            / statistic / { for (n = 1; n < NF; n++) { if ($n == "-s") from = $(n + 1); if ($n == "-d") to = $(n + 1); if ($n == "-c") count = $(n + 1) }
                            if ((from " " to) in wanted) sum += count }
            END { print sum + 0 }'
}

for_each_pair() { # A B: addresses as iptables prints them
    local from to
    for from in $(end_addresses "$1"); do
        for to in $(end_addresses "$2"); do echo "$from $to"; done
    done
}

# What the delay from A to B has done: see faults/delay.c.
print_held() { # A B
    local a b
    a=$(parse_end "$1")
    b=$(parse_end "$2")
    [[ -e $(fault_file delay "$a" "$b") ]] || die "nothing is delayed from $1 to $2"
    cat "$(held_log "$a" "$b")"
}

# Delay: kernels of small virtual machines lack netem, but every one has NFQUEUE: a program of ours holds each packet.

DELAY_PROGRAM=$PEERNET_CACHE/delay

build_delay_program() {
    local source=$TESTBED/faults/delay.c
    [[ -x $DELAY_PROGRAM && $DELAY_PROGRAM -nt $source ]] && return
    [[ -e /usr/include/libnetfilter_queue/libnetfilter_queue.h ]] || "$TESTBED/packages" libnetfilter-queue-dev
    cc -O2 -Wall -Wextra -o "$DELAY_PROGRAM" "$source" -lnetfilter_queue || die "cannot build $source"
}

held_log() { echo "$FAULTS/held-$1-$2.log"; } # A B
delay_pid_file() { echo "$FAULTS/program-$1-$2"; } # A B

# Prints the queue's number. The number need only be unlike the others of the same node: it is the delay's place in time.
start_delay() { # NODE A B "MS JITTER"
    local file queue_file queue
    file=$(delay_pid_file "$2" "$3")
    queue_file=$FAULTS/queue-$2-$3
    if ! recorded_process "$file" >/dev/null; then
        queue=$(($(cat "$FAULTS/last-queue" 2>/dev/null || echo 0) + 1))
        echo "$queue" >"$FAULTS/last-queue"
        echo "$queue" >"$queue_file"
        local milliseconds jitter
        read -r milliseconds jitter <<<"$4"
        setsid nsenter --net="$NETNS_FOLDER/$PREFIX$1" "$DELAY_PROGRAM" "$queue" "$milliseconds" "${jitter:-0}" \
            "$(held_log "$2" "$3")" >>"$FAULTS/delay.log" 2>&1 9>&- </dev/null &
        record_process "$file" $!
    fi
    cat "$queue_file"
}

stop_delay() { # A B
    kill_recorded "$(delay_pid_file "$1" "$2")"
}

# Those of a node: they hold its network namespace, and end with it.
stop_delays() { # NODE
    local file ends
    for file in "$FAULTS"/program-*; do
        [[ -e $file ]] || continue
        ends=${file##*/program-}
        if [[ $(place_of_rule "${ends%%-*}" "${ends##*-}") == "$1" ]]; then kill_recorded "$file"; fi
    done
}

# Runs after the rules were written: a program whose fault is gone has no more packets to hold.
stop_cleared_delays() {
    local file
    for file in "$FAULTS"/program-*; do
        [[ -e $file ]] || continue
        [[ -e $FAULTS/delay-${file##*/program-} ]] || kill_recorded "$file"
    done
}

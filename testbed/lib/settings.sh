# Where everything of the test cluster is, and which addresses it uses. Sourced by every script of the testbed.
#
# One cluster a machine: names in the kernel (namespaces, links, cgroups) are the machine's, all with the prefix pn-.
# shellcheck shell=bash disable=SC2034 # the settings are used by the scripts that source this file

TESTBED=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
CHECKOUT=$(dirname "$TESTBED")
export PEERNET_CACHE=${PEERNET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/peernet}

# State of the running cluster: `down` removes it, and moves its logs to SAVED_LOGS first.
STATE=$PEERNET_CACHE/cluster
PKI=$STATE/pki
CONTROL_PLANE=$STATE/control-plane
NODES=$STATE/nodes
FAULTS=$STATE/faults
LOGS=$PEERNET_CACHE/logs
SAVED_LOGS=$LOGS/cluster
# etcd writes to memory: a test cluster outlives no reboot, and a slow disk would slow every test.
ETCD_DATA=/dev/shm/pn-etcd

PREFIX=pn-
NETNS_FOLDER=/run/netns
WAN=pn-wan               # the namespace that plays the switch between the nodes
HOST_LINK=pn-host        # this machine's leg on that switch
HOST_IP=10.77.0.1
CONTROL_PLANE_IP=10.77.0.10
API_URL=https://$CONTROL_PLANE_IP:6443
POD_CIDR=10.244.0.0/16
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1
DNS_SERVICE_IP=10.96.0.10

PAUSE_IMAGE=localhost/peernet/pause:1
COMPONENTS=(etcd kube-apiserver kube-controller-manager kube-scheduler coredns)
MAX_NODES=20
ZONES=3

# Nodes are n1, n2, ...: every address of a node follows from its number.
node_ip() { echo "10.77.0.$((10 + ${1#n}))"; }
pod_network() { echo "10.244.${1#n}.0/24"; }
node_zone() { echo "zone-$(((${1#n} - 1) % ZONES + 1))"; }

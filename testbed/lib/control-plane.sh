# etcd, API server, controller manager, scheduler and CoreDNS, in a network namespace of their own.
# Needs settings.sh, common.sh, network.sh, and BIN (the folder with the programs).
# shellcheck shell=bash

component_log() { echo "$CONTROL_PLANE/$1.log"; }
component_pid_file() { echo "$CONTROL_PLANE/$1.pid"; }
component_runs() { recorded_process "$(component_pid_file "$1")" >/dev/null; }

# What each component is started with. Failures are noticed faster than by default, so that tests of a node's power cut
# take seconds: a silent node is NotReady after 10 s, its pods are given up 5 s later.
set_component_command() { # NAME: into COMMAND
    case $1 in
        etcd)
            COMMAND=("$BIN/etcd" --data-dir="$ETCD_DATA" --logger=zap --log-level=warn \
                --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
                --listen-peer-urls=http://127.0.0.1:2380)
            ;;
        kube-apiserver)
            # Without the address types, exec and logs would resolve the names of nodes, which no DNS knows.
            # shellcheck disable=SC2054 # commas within an argument
            COMMAND=("$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 \
                --advertise-address="$CONTROL_PLANE_IP" --service-cluster-ip-range="$SERVICE_CIDR" \
                --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
                --client-ca-file="$PKI/ca.crt" --cert-dir="$CONTROL_PLANE" \
                --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
                --service-account-issuer=https://kubernetes.default.svc.cluster.local \
                --service-account-key-file="$PKI/service-accounts.pub" \
                --service-account-signing-key-file="$PKI/service-accounts.key" \
                --kubelet-preferred-address-types=InternalIP \
                --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key" \
                --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" \
                --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
                --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
                --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key" \
                --default-not-ready-toleration-seconds=5 --default-unreachable-toleration-seconds=5)
            ;;
        kube-controller-manager)
            COMMAND=("$BIN/kube-controller-manager" --kubeconfig="$PKI/kube-controller-manager.kubeconfig" \
                --use-service-account-credentials --leader-elect=false --cert-dir="$CONTROL_PLANE" \
                --cluster-name=peernet-testbed --root-ca-file="$PKI/ca.crt" \
                --service-account-private-key-file="$PKI/service-accounts.key" \
                --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
                --flex-volume-plugin-dir="$CONTROL_PLANE/volume-plugins" \
                --node-monitor-grace-period=10s --node-monitor-period=1s)
            ;;
        kube-scheduler)
            COMMAND=("$BIN/kube-scheduler" --kubeconfig="$PKI/kube-scheduler.kubeconfig" --leader-elect=false \
                --cert-dir="$CONTROL_PLANE")
            ;;
        coredns)
            COMMAND=("$BIN/coredns" -conf "$CONTROL_PLANE/Corefile")
            ;;
        *) die "no component $1: one of ${COMPONENTS[*]}" ;;
    esac
}

write_corefile() {
    cat >"$CONTROL_PLANE/Corefile" <<EOT
.:53 {
    bind $CONTROL_PLANE_IP
    errors
    cache 5
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $PKI/coredns.kubeconfig
        ttl 5
    }
}
EOT
}

start_component() { # NAME
    local -a COMMAND
    component_runs "$1" && return 0
    set_component_command "$1"
    # Descriptor 9 is the lock of `cluster`: a daemon that kept it would lock its own `down` out.
    setsid nsenter --net="$NETNS_FOLDER/${PREFIX}cp" "${COMMAND[@]}" >>"$(component_log "$1")" 2>&1 9>&- </dev/null &
    record_process "$(component_pid_file "$1")" $!
}

stop_component() { # NAME: at once, as a crash would
    kill_recorded "$(component_pid_file "$1")"
}

component_ready() { # NAME
    component_runs "$1" || return 1
    case $1 in
        etcd) KUBECONFIG=/dev/null in_netns cp "$BIN/kubectl" --server=http://127.0.0.1:2379 get --raw /health ;;
        kube-apiserver) kubectl_admin get --raw /readyz ;;
        coredns) busybox nslookup kubernetes.default.svc.cluster.local "$CONTROL_PLANE_IP" ;;
    esac
}

start_component_and_wait() { # NAME
    start_component "$1"
    wait_until 60 "$1 to serve" "$(component_log "$1")" component_ready "$1"
}

kubectl_admin() { "$BIN/kubectl" --kubeconfig="$PKI/admin.kubeconfig" --request-timeout=10s "$@"; }

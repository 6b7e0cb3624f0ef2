# From programs to an operator that runs in a cluster, our own or the one that KUBECONFIG names: what `make demo` and
# `make test` have in common. Needs settings.sh, common.sh, steps.sh.
# shellcheck shell=bash

OPERATOR_NAMESPACE=peernet-system

# Our own cluster's kubeconfig in the environment (testbed/cluster env) does not make it a stranger's.
uses_own_cluster() { [[ -z ${KUBECONFIG:-} || $KUBECONFIG == "$PKI/admin.kubeconfig" ]]; }

# Says what the machine lacks, a line for each, before an hour is spent.
require_machine() {
    local complete=true
    lack() {
        say "error: $1"
        complete=false
    }
    command -v cargo >/dev/null || lack "Rust is missing: install it from https://rustup.rs"
    if uses_own_cluster; then
        [[ $(uname -s) == Linux ]] || lack "Linux is missing: the test cluster is made of its namespaces (or set KUBECONFIG to use an existing cluster)"
        ((EUID == 0)) || lack "$ROOT_IS_MISSING"
        command -v go >/dev/null || "$TESTBED/kubebox/build" >/dev/null 2>&1 ||
            lack "Go is missing: install Go 1.26 or later (https://go.dev/dl), the test cluster is built with it"
    else
        [[ ${PEERNET_OPERATOR_IMAGE:-} && ${PEERNET_NODE_IMAGE:-} ]] ||
            lack "KUBECONFIG names an existing cluster: PEERNET_OPERATOR_IMAGE and PEERNET_NODE_IMAGE must name images that it can pull"
    fi
    $complete
}

# kubectl and helm: our own, unless there are some for the existing cluster.
find_tools() {
    if uses_own_cluster || ! command -v kubectl >/dev/null || ! command -v helm >/dev/null; then
        step "programs of the test cluster" "$TESTBED/kubebox/build"
        export PATH=$PEERNET_CACHE/bin:$PATH
    fi
}

build_images() {
    "$TESTBED/image-archives" node operator tool >"$STEP_LOGS/images"
    cat "$STEP_LOGS/images"
}

image_of() { grep "^localhost/peernet/$1:" "$STEP_LOGS/images" | cut -f1; }

load_images() {
    local -a archives
    mapfile -t archives < <(cut -f2 "$STEP_LOGS/images")
    "$TESTBED/cluster" load "${archives[@]}"
}

# Programs, images and a cluster of our own; with an existing cluster, nothing but kubectl and helm.
make_cluster() {
    if ! uses_own_cluster; then
        find_tools
        return
    fi
    step "Debian packages" "$TESTBED/packages"
    find_tools
    step "release builds of operator and agent" make --no-print-directory --jobs=2 -C "$CHECKOUT" dist
    step "images" build_images
    step "cluster of three nodes in three zones" "$TESTBED/cluster" up 3
    step "images into the nodes" load_images
    KUBECONFIG=$PKI/admin.kubeconfig
    PEERNET_OPERATOR_IMAGE=$(image_of operator)
    PEERNET_NODE_IMAGE=$(image_of node)
    PEERNET_TOOL_IMAGE=$(image_of tool)
    export KUBECONFIG PEERNET_OPERATOR_IMAGE PEERNET_NODE_IMAGE PEERNET_TOOL_IMAGE
}

make_restricted_namespace() { # NAME
    kubectl create namespace "$1" --dry-run=client -o yaml | kubectl apply -f -
    kubectl label --overwrite namespace "$1" pod-security.kubernetes.io/enforce=restricted
}

# As strings: a tag may be all digits.
install_operator() {
    make_restricted_namespace "$OPERATOR_NAMESPACE"
    helm upgrade --install peernet "$CHECKOUT/charts/peernet" --namespace "$OPERATOR_NAMESPACE" --wait --timeout 2m \
        --set-string "image.repository=${PEERNET_OPERATOR_IMAGE%:*}" --set-string "image.tag=${PEERNET_OPERATOR_IMAGE##*:}" \
        --set-string "nodeImage.repository=${PEERNET_NODE_IMAGE%:*}" --set-string "nodeImage.tag=${PEERNET_NODE_IMAGE##*:}"
}

# What the cluster looked like when a step failed.
diagnose() {
    local file=$STEP_LOGS/diagnosis.log
    {
        kubectl get nodes,pods,peernetworks --all-namespaces -o wide
        kubectl get events --all-namespaces --sort-by=.lastTimestamp | tail -n 100
        kubectl get peernetworks --all-namespaces -o yaml
        kubectl logs --namespace "$OPERATOR_NAMESPACE" --selector app.kubernetes.io/instance=peernet --tail=500
    } >"$file" 2>&1 || true
    say "what the cluster looked like: $file"
}

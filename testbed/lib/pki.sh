# Certificates and kubeconfigs of the cluster, made with openssl. Needs settings.sh.
# shellcheck shell=bash

CERTIFICATE_DAYS=365

make_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$1.key" 2>/dev/null; }

make_authority() { # NAME
    make_key "$1"
    openssl req -x509 -new -key "$PKI/$1.key" -days "$CERTIFICATE_DAYS" -subj "/CN=$1" -out "$PKI/$1.crt"
}

make_certificate() { # NAME SUBJECT AUTHORITY [ALTERNATIVE NAMES]
    local name=$1 subject=$2 authority=$3 alternative_names=${4:-}
    make_key "$name"
    {
        echo "keyUsage=digitalSignature,keyEncipherment"
        echo "extendedKeyUsage=serverAuth,clientAuth"
        if [[ $alternative_names ]]; then echo "subjectAltName=$alternative_names"; fi
    } >"$PKI/$name.extensions"
    openssl req -new -key "$PKI/$name.key" -subj "$subject" |
        openssl x509 -req -CA "$PKI/$authority.crt" -CAkey "$PKI/$authority.key" -CAcreateserial \
            -days "$CERTIFICATE_DAYS" -extfile "$PKI/$name.extensions" -out "$PKI/$name.crt" 2>/dev/null
    rm "$PKI/$name.extensions"
}

make_kubeconfig() { # NAME: speaks to the API server with certificate NAME
    cat >"$PKI/$1.kubeconfig" <<EOT
apiVersion: v1
kind: Config
current-context: peernet-testbed
clusters:
- name: peernet-testbed
  cluster: {server: "$API_URL", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}
contexts:
- name: peernet-testbed
  context: {cluster: peernet-testbed, user: $1}
EOT
}

make_client() { # NAME SUBJECT
    make_certificate "$1" "$2" ca
    make_kubeconfig "$1"
}

make_pki() { # NODE...
    local node
    mkdir -p "$PKI"
    make_authority ca
    make_authority front-proxy-ca
    make_certificate apiserver /CN=kube-apiserver ca \
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$CONTROL_PLANE_IP,IP:$API_SERVICE_IP"
    make_certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client ca
    make_certificate front-proxy-client /CN=front-proxy-client front-proxy-ca
    make_client admin /O=system:masters/CN=admin
    make_client kube-controller-manager /CN=system:kube-controller-manager
    make_client kube-scheduler /CN=system:kube-scheduler
    make_client kube-proxy /CN=system:kube-proxy
    make_client coredns /CN=system:coredns
    for node in "$@"; do
        make_client "node-$node" "/O=system:nodes/CN=system:node:$node"
    done
    # The key that signs service account tokens.
    openssl genrsa -out "$PKI/service-accounts.key" 2048 2>/dev/null
    openssl rsa -in "$PKI/service-accounts.key" -pubout -out "$PKI/service-accounts.pub" 2>/dev/null
}
